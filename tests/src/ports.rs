//! Port numbers for servers that must come back under the same address.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};

/// Below the range that the kernel takes outgoing ports from: a client that keeps connecting to a dead server's port
/// could otherwise be given that very port as its own, be connected to itself, and keep the server from coming back.
const FIRST: u16 = 12_000;
const COUNT: u16 = 18_000;

static NEXT: AtomicU16 = AtomicU16::new(0);

/// A port on 127.0.0.1 that no process listens on, and that this process won't hand out soon again.
pub fn free_port() -> u16 {
    let start = std::process::id().wrapping_mul(7_919);
    for _ in 0..COUNT {
        let step = u32::from(NEXT.fetch_add(1, Ordering::Relaxed));
        let port =
            FIRST + u16::try_from(start.wrapping_add(step) % u32::from(COUNT)).expect("less than COUNT");
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port from {FIRST} to {}", FIRST + COUNT)
}
