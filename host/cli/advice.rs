//! What the user can change on the command line after an error: the library's errors say what happened and what was
//! expected, and know no flags.

use crate::backend::BackendError;
use crate::device::DeviceError;
use crate::device::codes::{CallError, LOST_CONTEXT, Library, NO_DEVICE, NOT_INITIALIZED};
use crate::engine::EngineError;

const ON_THE_CPU: &str = "Use --device cpu to run without a GPU";

/// The advice for `error`, if its cause is one that a flag avoids.
pub fn for_error(error: &anyhow::Error) -> Option<String> {
    error.chain().find_map(for_cause)
}

fn for_cause(cause: &(dyn std::error::Error + 'static)) -> Option<String> {
    if let Some(error) = cause.downcast_ref::<EngineError>() {
        return for_engine(error);
    }
    if let Some(error) = cause.downcast_ref::<BackendError>() {
        return for_backend(error);
    }
    for_device(cause.downcast_ref()?)
}

fn for_engine(error: &EngineError) -> Option<String> {
    match error {
        EngineError::Context { .. } => {
            Some("Raise it with --ctx, or shorten the prompt".to_owned())
        }
        EngineError::Backend(error) => for_backend(error),
        EngineError::Step(error) => for_backend(error),
        _ => None,
    }
}

fn for_backend(error: &BackendError) -> Option<String> {
    match error {
        BackendError::Device(error) => for_cause(&**error),
        _ => None,
    }
}

fn for_device(error: &DeviceError) -> Option<String> {
    match error {
        DeviceError::NoDriver { .. }
        | DeviceError::NoDevice { .. }
        | DeviceError::NoCuda
        | DeviceError::OldGpu { .. }
        | DeviceError::NoCublas { .. }
        | DeviceError::Unsupported(_) => Some(ON_THE_CPU.to_owned()),
        DeviceError::Plan(error) => Some(match error.fitting {
            Some(tokens) => format!("Use --ctx {tokens}"),
            None => "Use a smaller quantization, another GPU, or --device cpu".to_owned(),
        }),
        DeviceError::Call(error) => for_call(error),
        _ => None,
    }
}

fn for_call(error: &CallError) -> Option<String> {
    match (error.library, error.code) {
        (Library::Driver, NOT_INITIALIZED | NO_DEVICE) => Some(ON_THE_CPU.to_owned()),
        (Library::Driver, code) if LOST_CONTEXT.contains(&code) => {
            Some("--device sim names the kernel and the access".to_owned())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_is_found_below_transparent_errors() {
        let device = DeviceError::NoDevice {
            ordinal: 1,
            count: 0,
        };
        let backend = BackendError::Device(Box::new(device));
        let error = anyhow::Error::new(EngineError::Backend(backend)).context("measuring pp512");
        assert_eq!(for_error(&error).as_deref(), Some(ON_THE_CPU));

        let context = EngineError::Context {
            needed: 10,
            context: 5,
        };
        assert!(for_error(&context.into()).is_some_and(|advice| advice.contains("--ctx")));
        assert_eq!(for_error(&anyhow::anyhow!("anything else")), None);
    }
}
