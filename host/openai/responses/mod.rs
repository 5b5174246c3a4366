//! OpenAI's Responses API without a server and without a memory: a request brings its whole conversation along, and
//! nothing of an answer is kept.

mod input;
mod request;
mod response;
mod stream;
mod text;
mod tools;

pub use request::{Echo, ResponsesRequest};
pub use response::response_body;
pub use stream::ResponseStream;
