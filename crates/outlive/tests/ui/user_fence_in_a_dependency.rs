//! Nor through an explicit policy.

fn depend(user: outlive::UserFence) -> outlive::Dependency {
    outlive::Dependency::on(user).on_error(outlive::OnError::Run)
}

fn main() {
    let _ = depend;
}
