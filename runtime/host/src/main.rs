fn main() -> std::process::ExitCode {
    dualwright::cli::main()
}
