//! What can go wrong with images.

use std::io;
use std::path::Path;

/// The error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    #[error("no such image: {0}")]
    NotFound(String),
    #[error("invalid image reference {0:?}: {1}")]
    Reference(String, &'static str),
    /// Bytes are not what their digest or their format promises.
    #[error("corrupt image: {0}")]
    Corrupt(String),
    /// An archive tried something no image may do.
    #[error("refused: {0}")]
    Hostile(String),
    #[error("{0}: {1}")]
    Io(String, #[source] io::Error),
    /// The registry said no, or something we did not understand.
    #[error("{0}")]
    Registry(String),
    #[error("{0}: pull access denied: {1}")]
    Denied(String, String),
    #[error("{0}")]
    Conflict(String),
}

impl ImageError {
    /// Whether another registry may have what this one had not, or had in a bad state.
    pub(crate) fn is_of_registry(&self) -> bool {
        use ImageError::{Corrupt, Denied, NotFound, Registry};
        matches!(self, NotFound(_) | Corrupt(_) | Registry(_) | Denied(..))
    }
}

/// Adds what was tried to an input or output error.
pub(crate) trait Context<T> {
    fn context(self, what: &str) -> Result<T, ImageError>;
    fn at(self, path: &Path) -> Result<T, ImageError>;
}

impl<T, E: Into<io::Error>> Context<T> for Result<T, E> {
    fn context(self, what: &str) -> Result<T, ImageError> {
        self.map_err(|error| from_io(what.to_owned(), error.into()))
    }

    fn at(self, path: &Path) -> Result<T, ImageError> {
        self.map_err(|error| from_io(path.display().to_string(), error.into()))
    }
}

/// Our own errors travel through readers as `io::Error`; here they come out again.
fn from_io(what: String, error: io::Error) -> ImageError {
    match error.downcast::<ImageError>() {
        Ok(own) => own,
        Err(error) => ImageError::Io(what, error),
    }
}

impl From<ImageError> for io::Error {
    fn from(error: ImageError) -> io::Error {
        io::Error::other(error)
    }
}
