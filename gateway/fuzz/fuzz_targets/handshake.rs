//! A stream that begins with a handshake; see [`hubcast_fuzz::handshake`].
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| hubcast_fuzz::handshake::check(input));
