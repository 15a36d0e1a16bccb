//! What can go wrong with a GPU.

use super::ffi;
use std::ffi::CStr;

/// What the GPU's library said, or arguments that do not fit each other.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("GPU: {0}")]
pub struct Error(pub String);

pub type Result<T> = std::result::Result<T, Error>;

/// An error number of the library as a result.
pub(super) fn check(number: i32) -> Result<()> {
    if number == 0 {
        return Ok(());
    }
    // SAFETY: the library returns a text that ends with a zero and stays until this thread's next failing call.
    let text = unsafe { CStr::from_ptr(ffi::lr_gpu_error()) };
    Err(Error(text.to_string_lossy().into_owned()))
}

/// `what` if the condition does not hold.
pub(super) fn ensure(condition: bool, what: impl FnOnce() -> String) -> Result<()> {
    if condition { Ok(()) } else { Err(Error(what())) }
}
