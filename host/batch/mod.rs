//! Files of requests, answered many at a time: OpenAI's batch form, a JSON object a line.
//!
//! The results are a journal: a line is appended when its request is finished, and what is missing is done by the next
//! run. A result follows from the request file, the model and the options alone, so that it does not matter which run
//! made it.

mod identity;
mod journal;
mod requests;
mod result_line;
mod run;

pub use identity::{Identity, fingerprint};
pub use journal::{Journal, JournalError};
pub use requests::{Body, Line, RequestFile, RequestFileError};
pub use result_line::ResultLine;
pub use run::{Batch, BatchError, Progress, Summary};
