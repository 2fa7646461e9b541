//! Lets the linker keep one copy of functions, and of constants, that came out the same: typed
//! code for a hundred kinds has many, and nothing here tells constants apart by their addresses.
//! Only the shipped binary, for the linker's pass costs seconds.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let release = std::env::var("PROFILE").is_ok_and(|profile| profile == "release");
    // Only this linker, rustc's own on these targets, is known to understand it.
    let linux = std::env::var("TARGET").is_ok_and(|target| target == "x86_64-unknown-linux-gnu");
    if release && linux {
        println!("cargo::rustc-link-arg-bin=sampan=-Wl,--icf=all,--ignore-data-address-equality");
    }
}
