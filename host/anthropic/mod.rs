//! Anthropic's Messages API without a server: requests, which become those for a conversation's next message and obey
//! its rules, and responses, whole and in pieces.

mod content;
mod error;
mod message;
mod request;
mod stream;
mod tools;

pub use error::error_body;
pub use message::{count_body, message_body};
pub use request::MessagesRequest;
pub use stream::{MessageStream, ping};
