//! Hang-ups. A program that was started with them ignored, as `nohup` does it, must leave them so:
//! the handler for Ctrl-C and polite kills would take them for a wish to stop.

#[cfg(unix)]
pub fn hangups_ignored() -> bool {
    // SAFETY: only asks; `action` is plain data that the call fills.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        libc::sigaction(libc::SIGHUP, std::ptr::null(), &mut action) == 0
            && action.sa_sigaction == libc::SIG_IGN
    }
}

#[cfg(unix)]
pub fn ignore_hangups() {
    // SAFETY: sets no handler, so no code runs in a signal's context.
    unsafe {
        libc::signal(libc::SIGHUP, libc::SIG_IGN);
    }
}

#[cfg(not(unix))]
pub fn hangups_ignored() -> bool {
    false
}

#[cfg(not(unix))]
pub fn ignore_hangups() {}
