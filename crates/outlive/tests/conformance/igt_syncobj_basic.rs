//! IGT `syncobj_basic`. Flags and padding are no numbers here, so `bad-create-flags`, `bad-flags-handle-to-fd`,
//! `bad-flags-fd-to-handle`, `bad-pad-handle-to-fd`, `bad-pad-fd-to-handle` and `bad-destroy-pad` do not compile: see `tests/ui`.

use crate::drm::{ANY, Client, Inval, POLL};

#[test]
fn bad_destroy() {
    assert_eq!(Client::new().destroy(0xdead_beef), Err(Inval));
}

#[test]
fn bad_handle_to_fd() {
    assert_eq!(Client::new().handle_to_fd(0xdead_beef), Err(Inval));
}

#[test]
fn bad_fd_to_handle() {
    assert_eq!(Client::new().fd_to_handle(usize::MAX), Err(Inval));
}

/// Upstream gives the device's own descriptor. Here one that is open, but no sync object's.
#[test]
fn illegal_fd_to_handle() {
    let client = Client::new();
    client.handle_to_fd(client.create()).unwrap();
    assert_eq!(client.fd_to_handle(1), Err(Inval));
}

#[test]
fn create_signaled() {
    let client = Client::new();
    assert_eq!(client.wait(&[(client.create_signaled(), 0)], ANY, POLL), Ok(Some(0)));
}

#[test]
fn test_valid_cycle() {
    let client = Client::new();
    let first = client.create();
    let second = client.fd_to_handle(client.handle_to_fd(first).unwrap()).unwrap();
    assert_ne!(first, second);
    client.signal(&[(first, 0)]).unwrap();
    assert_eq!(client.wait(&[(second, 0)], ANY, POLL), Ok(Some(0)), "the same object");
    client.destroy(first).unwrap();
    client.destroy(second).unwrap();
}
