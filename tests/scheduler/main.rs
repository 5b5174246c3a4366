//! Many requests beside each other: each gets the text that it gets alone, whatever the schedule, and all pages come
//! back.

#[path = "../support/mod.rs"]
mod support;

mod drafts;
mod driver_calls;
mod faults;
mod noted_logits;
mod on_device;
mod prefixes;
mod schedules;
mod setup;
