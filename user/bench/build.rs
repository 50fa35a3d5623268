//! Gives `bench-first` a place in memory that no other program uses: the debugger that waits for
//! its first instruction knows it by its address.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let target = std::env::var("TARGET").unwrap_or_default();
    if target.starts_with("aarch64-") {
        println!("cargo::rustc-link-arg-bin=bench-first=--image-base=0x70000000");
    }
}
