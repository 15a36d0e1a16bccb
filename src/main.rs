//! The program `longreward`. Everything is in the library; see `cli`.

use std::process::ExitCode;

fn main() -> ExitCode {
    keep_freed_memory();
    longreward::cli::main()
}

/// Tells glibc's allocator to keep freed memory instead of returning it to the system at once:
/// every step of the decoder frees and takes buffers of megabytes, and mapping them anew would
/// halve the speed of long prefills.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn keep_freed_memory() {
    // SAFETY: called once, before any other thread exists; the options take plain integers.
    unsafe {
        libc::mallopt(libc::M_MMAP_MAX, 0);
        libc::mallopt(libc::M_TRIM_THRESHOLD, i32::MAX);
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn keep_freed_memory() {}
