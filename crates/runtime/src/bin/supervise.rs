//! A supervisor alone, for tests; in the product it is a hidden subcommand.

fn main() {
    let args: Vec<String> = std::env::args().collect();
    // Takes both `supervise <folder>` and the bare folder.
    let rest = args.get(1..).unwrap_or_default();
    let rest = match rest.first().map(String::as_str) {
        Some("supervise") => &rest[1..],
        _ => rest,
    };
    std::process::exit(runtime::supervisor::main(rest));
}
