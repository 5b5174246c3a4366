//! How much of its memory the simulated driver takes: exactly what is asked for, or what NVIDIA's driver takes.

use std::collections::{HashMap, HashSet};

use super::super::plan::{GRANULE, SMALL_ALLOCATION};

/// What a driver takes besides the allocations.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DriverCosts {
    /// Bytes of each kernel, from when it is first looked up.
    pub kernel: u64,
    /// Bytes that the first product by cuBLAS loads.
    pub products: u64,
    /// Bytes of each recorded graph.
    pub graph: u64,
}

/// The account of a device's memory.
#[derive(Debug, Default)]
pub struct DriverMemory {
    /// Whether allocations take granules, or only what they ask for.
    is_granular: bool,
    costs: DriverCosts,
    /// Bytes taken by large allocations, or by all that take what they ask for.
    large: u64,
    /// Bytes in use of each granule that small allocations share.
    shared: Vec<u64>,
    /// Granule and aligned size of each small allocation, by its address.
    small: HashMap<u64, (usize, u64)>,
    kernels: HashSet<u32>,
    multiplies: bool,
    graphs: u64,
}

impl DriverMemory {
    /// A driver that takes whole granules.
    pub fn granular() -> DriverMemory {
        DriverMemory {
            is_granular: true,
            ..DriverMemory::default()
        }
    }

    /// A driver that takes whole granules and has `costs`.
    pub fn with_costs(costs: DriverCosts) -> DriverMemory {
        DriverMemory {
            costs,
            ..DriverMemory::granular()
        }
    }

    /// Bytes taken.
    pub fn taken(&self) -> u64 {
        let granules = self.shared.iter().filter(|&&used| used > 0).count() as u64;
        let products = if self.multiplies {
            self.costs.products
        } else {
            0
        };
        self.large
            + granules * GRANULE
            + self.kernels.len() as u64 * self.costs.kernel
            + self.graphs * self.costs.graph
            + products
    }

    /// Bytes that an allocation of `bytes` would take.
    pub fn needed(&self, bytes: u64) -> u64 {
        match self.size(bytes) {
            Size::Large(bytes) => bytes,
            Size::Small(bytes) if self.place(bytes).is_some() => 0,
            Size::Small(_) => GRANULE,
        }
    }

    /// Takes memory for an allocation at `address`.
    pub fn allocate(&mut self, address: u64, bytes: u64) {
        match self.size(bytes) {
            Size::Large(bytes) => self.large += bytes,
            Size::Small(bytes) => {
                let granule = self.place(bytes).unwrap_or_else(|| {
                    self.shared.push(0);
                    self.shared.len() - 1
                });
                self.shared[granule] += bytes;
                self.small.insert(address, (granule, bytes));
            }
        }
    }

    /// Gives back the memory of the allocation at `address`.
    pub fn free(&mut self, address: u64, bytes: u64) {
        match (self.size(bytes), self.small.remove(&address)) {
            (_, Some((granule, bytes))) => self.shared[granule] -= bytes,
            (Size::Large(bytes) | Size::Small(bytes), None) => self.large -= bytes,
        }
    }

    /// Bytes that looking up kernel `kernel` takes.
    pub fn kernel_needs(&self, kernel: u32) -> u64 {
        match self.kernels.contains(&kernel) {
            true => 0,
            false => self.costs.kernel,
        }
    }

    /// Kernel `kernel` is loaded.
    pub fn load(&mut self, kernel: u32) {
        self.kernels.insert(kernel);
    }

    /// Bytes that a product takes.
    pub fn product_needs(&self) -> u64 {
        match self.multiplies {
            true => 0,
            false => self.costs.products,
        }
    }

    /// cuBLAS has its kernels.
    pub fn multiply(&mut self) {
        self.multiplies = true;
    }

    /// Bytes that recording a graph takes.
    pub fn graph_needs(&self) -> u64 {
        self.costs.graph
    }

    /// Another graph is there.
    pub fn record(&mut self) {
        self.graphs += 1;
    }

    /// A graph is gone.
    pub fn drop_graph(&mut self) {
        self.graphs -= 1;
    }

    fn size(&self, bytes: u64) -> Size {
        match (self.is_granular, bytes) {
            (false, bytes) => Size::Large(bytes),
            (true, bytes) if bytes > SMALL_ALLOCATION => {
                Size::Large(bytes.next_multiple_of(GRANULE))
            }
            (true, bytes) => Size::Small(bytes.max(1).next_multiple_of(512)),
        }
    }

    /// The first granule with room for a small allocation.
    fn place(&self, bytes: u64) -> Option<usize> {
        self.shared.iter().position(|&used| used + bytes <= GRANULE)
    }
}

enum Size {
    Large(u64),
    Small(u64),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_allocations_share_granules_and_large_ones_round_up() {
        let mut driver = DriverMemory::granular();
        driver.allocate(1, 1);
        driver.allocate(2, SMALL_ALLOCATION);
        assert_eq!(driver.taken(), GRANULE);
        assert_eq!(
            driver.needed(SMALL_ALLOCATION),
            GRANULE,
            "no room beside both"
        );
        assert_eq!(driver.needed(600), 0);
        driver.allocate(3, SMALL_ALLOCATION + 1);
        driver.allocate(4, GRANULE + 1);
        assert_eq!(driver.taken(), 4 * GRANULE);
        for (address, bytes) in [
            (2, SMALL_ALLOCATION),
            (3, SMALL_ALLOCATION + 1),
            (4, GRANULE + 1),
        ] {
            driver.free(address, bytes);
        }
        assert_eq!(driver.taken(), GRANULE);
        driver.free(1, 1);
        assert_eq!(driver.taken(), 0);
    }

    #[test]
    fn kernels_products_and_graphs_cost_what_they_cost_once() {
        let mut driver = DriverMemory::with_costs(DriverCosts {
            kernel: 3,
            products: 50,
            graph: 700,
        });
        for _ in 0..2 {
            driver.load(8);
            driver.multiply();
        }
        driver.load(9);
        driver.record();
        driver.record();
        driver.drop_graph();
        assert_eq!(driver.taken(), 2 * 3 + 50 + 700);
        assert_eq!((driver.kernel_needs(8), driver.product_needs()), (0, 0));
    }
}
