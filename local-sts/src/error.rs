//! The errors that STS responds with.

/// An error of STS: what [the common errors] list, by status, code and message.
///
/// [the common errors]: https://docs.aws.amazon.com/STS/latest/APIReference/CommonErrors.html
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct StsError {
    pub(crate) status: u16,
    pub(crate) code: &'static str,
    pub(crate) message: String,
}

impl StsError {
    pub(crate) fn new(status: u16, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into() }
    }
}
