//! The whole cloud-native stack in one boat: this file only chooses who shall
//! run. Everything is built in `server`, and nowhere else.

mod access;
mod accounts;
mod addons;
mod audit;
mod certificates;
mod cli;
mod config;
mod crews;
mod demo;
mod demo_app;
mod engine;
mod files;
mod guard;
mod identity;
mod image;
mod join;
mod node_flags;
mod node_runtime;
mod node_settings;
mod purge;
mod reload;
mod server;
mod service;
mod serving;
mod tokens;

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: linux::allocator::ByRole = linux::allocator::ByRole;

fn main() -> ExitCode {
    let arguments: Vec<std::ffi::OsString> = std::env::args_os().collect();
    // The supervisor of a pod is this same binary, kept small: no runtime, no threads.
    if arguments.get(1).is_some_and(|word| word == "supervise") {
        let rest: Vec<String> = arguments[2..]
            .iter()
            .map(|word| word.to_string_lossy().into_owned())
            .collect();
        return exit_code(runtime::supervisor::main(&rest));
    }
    exit_code(cli::run())
}

fn exit_code(code: i32) -> ExitCode {
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}
