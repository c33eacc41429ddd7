//! Generates the wire types from the .proto file without protoc.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto/hubcast.proto");
    let descriptors = protox::compile(["hubcast.proto"], ["proto"])?;
    let mut config = prost_build::Config::new();
    config.bytes(["."]); // payloads are shared slices, not copies
    config.boxed(".hubcast.v1.Envelope.close"); // rare: an envelope is small without them
    config.boxed(".hubcast.v1.Envelope.stream");
    config.boxed(".hubcast.v1.Envelope.web_pubsub");
    config.compile_fds(descriptors)?;
    Ok(())
}
