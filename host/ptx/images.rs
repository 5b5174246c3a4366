//! PTX for several architectures, and which of it a GPU runs.

use thiserror::Error;

use super::modules::{PtxModule, modules};

/// PTX for one architecture.
#[derive(Debug, Clone, Copy)]
pub struct PtxImage {
    /// The architecture that it was compiled for: 80 is `sm_80`.
    pub arch: u32,
    /// The PTX text.
    pub text: PtxText,
}

/// A PTX text, unpacked or not yet.
#[derive(Debug, Clone, Copy)]
pub enum PtxText {
    /// As it is.
    Plain(&'static str),
    /// One that this binary carries.
    Embedded(&'static PtxModule),
}

impl PtxText {
    /// The text.
    pub fn get(self) -> &'static str {
        match self {
            PtxText::Plain(text) => text,
            PtxText::Embedded(module) => module.ptx(),
        }
    }
}

/// All images are for later GPUs.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("no kernels for compute capability {}.{}: this build embeds {available}", .capability.0, .capability.1)]
pub struct NoImage {
    /// The GPU's compute capability.
    pub capability: (u32, u32),
    /// The architectures that there are images for.
    pub available: String,
}

/// The images that this binary carries.
pub fn embedded() -> Vec<PtxImage> {
    let images = modules().iter().map(|module| PtxImage {
        arch: module.compute_capability,
        text: PtxText::Embedded(module),
    });
    images.collect()
}

/// The image for the highest architecture that `capability` runs.
///
/// # Errors
/// All images are for later GPUs.
pub fn select(images: &[PtxImage], capability: (u32, u32)) -> Result<PtxImage, NoImage> {
    let arch = capability.0 * 10 + capability.1;
    let suitable = images.iter().filter(|image| image.arch <= arch);
    let highest = suitable.max_by_key(|image| image.arch);
    highest.copied().ok_or_else(|| {
        let available = images.iter().map(|image| format!("sm_{}", image.arch));
        NoImage {
            capability,
            available: available.collect::<Vec<_>>().join(", "),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_suitable_image_is_selected() {
        let plain = |arch| PtxImage {
            arch,
            text: PtxText::Plain(""),
        };
        for images in [vec![plain(90), plain(80)], embedded()] {
            for (capability, arch) in [((8, 0), 80), ((8, 9), 80), ((9, 0), 90), ((12, 0), 90)] {
                assert_eq!(select(&images, capability).unwrap().arch, arch);
            }
            let error = select(&images, (7, 5)).unwrap_err().to_string();
            assert!(error.contains("7.5") && error.contains("sm_80"), "{error}");
        }
    }
}
