//! From what went wrong inside the executor to a [`Fault`].

use crate::exec::launch::{Context, thread_of};
use crate::fault::{Fault, FaultKind, NearAllocation};
use crate::lower::{LOCAL_BASE, SHARED_BASE};
use crate::memory::{Slot, space_of};
use crate::ty::Space;

/// A fault before the instruction and block are known.
#[derive(Debug)]
pub(crate) struct Trouble {
    pub kind: FaultKind,
    /// The lane at fault; the first active one if not given.
    pub lane: Option<usize>,
    pub address: Option<(Space, u64)>,
}

pub(crate) type Outcome<T> = Result<T, Box<Trouble>>;

impl From<FaultKind> for Box<Trouble> {
    fn from(kind: FaultKind) -> Self {
        Box::new(Trouble {
            kind,
            lane: None,
            address: None,
        })
    }
}

/// A fault of one lane's access.
pub(crate) fn access(kind: FaultKind, lane: usize, space: Space, address: u64) -> Box<Trouble> {
    Box::new(Trouble {
        kind,
        lane: Some(lane),
        address: Some((space, address)),
    })
}

/// A fault for which no address is to blame.
pub(crate) fn lane(kind: FaultKind, lane: usize) -> Box<Trouble> {
    Box::new(Trouble {
        kind,
        lane: Some(lane),
        address: None,
    })
}

pub(crate) fn invalid(reason: &str) -> Box<Trouble> {
    FaultKind::Invalid {
        reason: reason.to_owned(),
    }
    .into()
}

pub(crate) fn undefined(register: &str) -> Box<Trouble> {
    FaultKind::UninitialisedRegister {
        register: register.to_owned(),
    }
    .into()
}

pub(crate) fn invalid_launch(kernel: &str, reason: String) -> Fault {
    Fault {
        kind: FaultKind::InvalidLaunch { reason },
        kernel: kernel.into(),
        line: 0,
        text: "".into(),
        block: [0; 3],
        thread: [0; 3],
        address: None,
        allocation: None,
    }
}

/// Completes a fault with the instruction, block, thread and allocation.
pub(crate) fn complete(
    context: &Context<'_>,
    trouble: Trouble,
    pc: u32,
    block: [u32; 3],
    first_thread: u32,
) -> Box<Fault> {
    let line = context
        .kernel
        .program
        .code
        .get(pc as usize)
        .map_or(0, |instr| instr.line);
    let text = context.module.source_line(line).unwrap_or_default();
    let address = trouble.address.map(|(space, address)| match space {
        Space::Generic => space_of(address),
        _ => (space, address),
    });
    Box::new(Fault {
        kind: trouble.kind,
        kernel: context.kernel.name().into(),
        line,
        text: text.trim().into(),
        block,
        thread: thread_of(first_thread, context.launch.block),
        address,
        allocation: address
            .and_then(|(space, address)| near(context, space, address))
            .map(Box::new),
    })
}

fn near(context: &Context<'_>, space: Space, address: u64) -> Option<NearAllocation> {
    let own = |label: &str, base: u32, size: u32| {
        let offset = (address as i64).wrapping_sub(i64::from(base));
        Some(NearAllocation {
            label: label.to_owned(),
            size: size as usize,
            offset,
        })
    };
    let program = &context.kernel.program;
    match space {
        Space::Shared => {
            let size = program.static_shared_bytes + context.launch.dynamic_shared;
            own("shared memory", SHARED_BASE, size)
        }
        Space::Local => own("local memory", LOCAL_BASE, program.frame_bytes - LOCAL_BASE),
        Space::Param => own("kernel parameters", 0, context.kernel.param_bytes()),
        Space::Global | Space::Const | Space::Generic => {
            // An address just below an allocation has the number of the one before.
            let (slot, offset) = context.table.find(address);
            let below = (1u64 << 36) - offset;
            let next = context.table.find(address.wrapping_add(below)).0;
            let (slot, offset) = match next {
                Some(next) if below < 1 << 20 => (Some(next), -below.cast_signed()),
                _ => (slot, offset.cast_signed()),
            };
            match slot? {
                Slot::Live(allocation) => Some(NearAllocation {
                    label: allocation.label.clone(),
                    size: allocation.bytes,
                    offset,
                }),
                Slot::Freed { label, bytes } => Some(NearAllocation {
                    label: label.clone(),
                    size: *bytes,
                    offset,
                }),
            }
        }
    }
}
