//! What a step lends ends with it: a driver cannot keep a mapping's data, or the space.

use outlive::vm::{BindCx, ImmediateDriver, OpenBo, Space};

fn keep<'a, D: ImmediateDriver>(
    cx: &mut BindCx<'_, D>,
    kept: &mut Option<&'a Space<OpenBo<D>, D::Mapping>>,
) {
    *kept = Some(cx.space);
}

fn main() {}
