//! Frames of a client's WebSocket; see [`hubcast_fuzz::websocket`].
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| hubcast_fuzz::websocket::check(input));
