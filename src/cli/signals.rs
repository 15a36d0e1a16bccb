//! Signals whose usual handling in Rust programs is not what people at a shell expect.

use anyhow::{Context, Result};

/// Calls `handler` at Ctrl-C, a polite kill and a hang-up; at a hang-up only if the program was not
/// started with hang-ups ignored.
///
/// # Errors
/// There is a handler already.
pub fn on_interrupt(handler: impl FnMut() + Send + 'static) -> Result<()> {
    let hangups_ignored = hangups_ignored();
    ctrlc::set_handler(handler).context("no handler for Ctrl-C")?;
    if hangups_ignored {
        ignore_hangups();
    }
    Ok(())
}

/// Whether the program was started with hang-ups ignored, as `nohup` does it. It must leave them so: the
/// handler for Ctrl-C and polite kills would take them for a wish to stop.
#[cfg(unix)]
fn hangups_ignored() -> bool {
    // SAFETY: only asks; `action` is plain data that the call fills.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        libc::sigaction(libc::SIGHUP, std::ptr::null(), &mut action) == 0
            && action.sa_sigaction == libc::SIG_IGN
    }
}

#[cfg(unix)]
fn ignore_hangups() {
    // SAFETY: sets no handler, so no code runs in a signal's context.
    unsafe {
        libc::signal(libc::SIGHUP, libc::SIG_IGN);
    }
}

/// Ends the program without a word when whoever reads its output has gone (`… | head`); otherwise
/// the next line that it prints would be a panic.
#[cfg(unix)]
pub fn end_with_the_reader() {
    // SAFETY: as above.
    unsafe {
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
    }
}

#[cfg(not(unix))]
fn hangups_ignored() -> bool {
    false
}

#[cfg(not(unix))]
fn ignore_hangups() {}

#[cfg(not(unix))]
pub fn end_with_the_reader() {}
