//! Compiles the .proto files with protox, so that no protoc is needed.

const FILES: [&str; 7] = [
    "boxyard/v1/types.proto",
    "boxyard/v1/node.proto",
    "boxyard/v1/context.proto",
    "boxyard/v1/store.proto",
    "boxyard/v1/sync.proto",
    "boxyard/v1/build.proto",
    "boxyard/v1/gateway.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for file in FILES {
        println!("cargo:rerun-if-changed={file}");
    }
    let descriptors = protox::compile(FILES, ["."])?;
    prost_build::Config::new().compile_fds(descriptors)?;
    Ok(())
}
