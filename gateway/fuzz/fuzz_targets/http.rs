//! A script of requests; see [`hubcast_fuzz::http`].
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| hubcast_fuzz::http::check(input));
