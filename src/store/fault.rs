use std::error::Error;
use std::fmt;
use std::io;
use std::sync::Arc;

/// Why the store could not do what it was asked.
///
/// Displays a text that anybody may see, within and outside the machine. The text is made of fixed words, numbers, and
/// the system's text for an error code, so it has no path and no words of the cause. The cause itself is for the log:
/// [`Fault::in_full`].
///
/// Two faults are equal if their texts are equal; their causes are not compared.
///
/// ```
/// use turn_metrics::store::{Fault, FaultKind};
///
/// let denied = std::io::Error::other("cannot write /var/lib/turns");
/// let fault = Fault::new(FaultKind::Disk, "the disk failed").caused_by(denied);
/// assert_eq!(fault.to_string(), "the disk failed");
/// assert_eq!(fault.in_full(), "cannot write /var/lib/turns");
/// ```
#[derive(Debug, Clone)]
pub struct Fault {
    kind: FaultKind,
    what: &'static str,
    detail: Detail,
    cause: Option<Arc<dyn Error + Send + Sync>>,
}

/// The kind of a fault, which says what the caller may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FaultKind {
    /// The store was closed. It answers nothing any more.
    Closed,
    /// The disk failed. Retry later: the store opens its files again by itself.
    Disk,
    /// The database failed for another reason, or cannot be opened. Retry later; an operator may have to help.
    Database,
    /// A stored record cannot be read. Retrying does not help; a check names the record.
    Damaged,
    /// Code of the store panicked, because of a defect or of unexpected damage. Retry later.
    Panicked,
    /// The thread or actor that answers is gone. The process should end.
    Unreachable,
}

/// The variable part of a fault's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Detail {
    Nothing,
    /// The code of an error of the system.
    Code(i32),
    /// The kind of an I/O error that has no code.
    Io(io::ErrorKind),
    Words(&'static str),
    Number(u64),
}

impl Fault {
    /// Returns a fault of this kind. Anybody may see the text `what`.
    pub fn new(kind: FaultKind, what: &'static str) -> Self {
        Self { kind, what, detail: Detail::Nothing, cause: None }
    }

    /// Adds the cause, which only the log shows.
    #[must_use]
    pub fn caused_by(mut self, cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.cause = Some(cause.into().into());
        self
    }

    /// Adds the code of an I/O error, or else its kind, to the text, but none of its words.
    #[must_use]
    pub(crate) fn of_io(mut self, error: &io::Error) -> Self {
        self.detail = match (error.raw_os_error(), error.kind()) {
            (Some(code), _) => Detail::Code(code),
            (None, io::ErrorKind::Other) => Detail::Nothing,
            (None, kind) => Detail::Io(kind),
        };
        self
    }

    /// Appends these words, which say what the fault is about, to the text.
    #[must_use]
    pub(crate) fn about(mut self, words: &'static str) -> Self {
        self.detail = Detail::Words(words);
        self
    }

    /// Appends the number of the thing that the fault is about to the text.
    #[must_use]
    pub(crate) fn numbered(mut self, number: u64) -> Self {
        self.detail = Detail::Number(number);
        self
    }

    /// Returns the fault of a disk that failed with this error.
    pub(crate) fn disk(error: io::Error) -> Self {
        Self::new(FaultKind::Disk, "the disk failed").of_io(&error).caused_by(error)
    }

    /// Returns the fault of a store that was closed in order.
    pub(crate) fn closed() -> Self {
        Self::new(FaultKind::Closed, "the store was closed")
    }

    /// Returns the fault of a panic in the store's code.
    pub(crate) fn panicked(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::new(FaultKind::Panicked, "the store's code panicked").caused_by(cause)
    }

    /// Returns the fault of a store whose thread or actor is gone.
    pub(crate) fn unreachable(what: &'static str) -> Self {
        Self::new(FaultKind::Unreachable, what)
    }

    /// Returns the kind, which says what the caller may do.
    pub fn kind(&self) -> FaultKind {
        self.kind
    }

    /// Returns the words of the cause and of its own causes, for the log: they may name paths. Without a cause, this is
    /// the displayed text.
    pub fn in_full(&self) -> String {
        let mut cause = self.source();
        let mut text = cause.map_or_else(|| self.to_string(), ToString::to_string);
        while let Some(deeper) = cause.and_then(Error::source) {
            let said = deeper.to_string();
            // Many errors repeat the text of the error that caused them.
            if !text.contains(&said) {
                text = format!("{text}: {said}");
            }
            cause = Some(deeper);
        }
        text
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.what)?;
        match self.detail {
            Detail::Nothing => Ok(()),
            Detail::Code(code) => {
                let error = io::Error::from_raw_os_error(code);
                write!(f, ": {error}")?;
                match error.kind() {
                    io::ErrorKind::FileTooLarge => f.write_str(
                        ": a file has reached the size limit of this process (`ulimit -f`) or of its file system, \
                         though the disk may have room",
                    ),
                    _ => Ok(()),
                }
            }
            Detail::Io(kind) => write!(f, ": {kind}"),
            Detail::Words(words) => write!(f, ": {words}"),
            Detail::Number(number) => write!(f, ": {number}"),
        }
    }
}

impl Error for Fault {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.cause.as_deref().map(|cause| cause as &(dyn Error + 'static))
    }
}

impl PartialEq for Fault {
    fn eq(&self, other: &Self) -> bool {
        (self.kind, self.what, self.detail) == (other.kind, other.what, other.detail)
    }
}

impl Eq for Fault {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_displayed_text_of_a_disk_error_has_only_its_code() {
        let told = |error| Fault::disk(error).to_string();
        assert_eq!(told(io::Error::from_raw_os_error(28)), "the disk failed: No space left on device (os error 28)");
        assert_eq!(told(io::Error::from_raw_os_error(5)), "the disk failed: Input/output error (os error 5)");
        assert_eq!(
            told(io::Error::from_raw_os_error(27)),
            "the disk failed: File too large (os error 27): a file has reached the size limit of this process \
             (`ulimit -f`) or of its file system, though the disk may have room"
        );
        let kind = io::ErrorKind::UnexpectedEof;
        assert_eq!(told(io::Error::new(kind, "/var/lib/secret ends")), "the disk failed: unexpected end of file");
        assert_eq!(told(io::Error::other("/var/lib/secret")), "the disk failed");
    }

    #[test]
    fn the_text_for_the_log_has_each_cause_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("cannot open {0}")]
        struct Outer(&'static str, #[source] io::Error);

        let error = io::Error::from_raw_os_error(13);
        let fault = Fault::new(FaultKind::Disk, "no directory").of_io(&error).caused_by(Outer("/srv/x", error));
        assert_eq!(fault.to_string(), "no directory: Permission denied (os error 13)");
        assert_eq!(fault.in_full(), "cannot open /srv/x: Permission denied (os error 13)");
        assert_eq!(Fault::disk(io::Error::from_raw_os_error(5)).in_full(), "Input/output error (os error 5)");
        assert_eq!(Fault::closed().in_full(), "the store was closed");
        assert!(format!("{fault:?}").contains("/srv/x"), "the debug output has no cause");
    }

    #[test]
    fn faults_are_equal_if_their_displayed_texts_are_equal() {
        let fault = || Fault::new(FaultKind::Database, "no");
        assert_eq!(fault().caused_by("one"), fault().caused_by("another"));
        for other in [fault().numbered(1), fault().about("x"), Fault::new(FaultKind::Disk, "no"), Fault::closed()] {
            assert_ne!(fault(), other);
        }
        assert_eq!(fault().numbered(7).to_string(), "no: 7");
        assert_eq!(fault().about("a journal row").to_string(), "no: a journal row");
    }
}
