//! A MessagePack stream; see [`hubcast_fuzz::stream`].
#![no_main]

use hubcast::protocol::HubProtocol;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| hubcast_fuzz::stream::check(HubProtocol::MessagePack, input));
