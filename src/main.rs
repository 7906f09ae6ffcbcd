//! The program.

fn main() -> std::process::ExitCode {
    llmatrix::cli::main()
}
