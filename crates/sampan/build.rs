//! Lets the linker keep one copy of functions that came out the same: typed code for a hundred
//! kinds has many. Only the shipped binary, for the linker's pass costs seconds.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let release = std::env::var("PROFILE").is_ok_and(|profile| profile == "release");
    // Only this linker, rustc's own on these targets, is known to understand it.
    let linux = std::env::var("TARGET").is_ok_and(|target| target == "x86_64-unknown-linux-gnu");
    if release && linux {
        println!("cargo::rustc-link-arg-bin=sampan=-Wl,--icf=all");
    }
}
