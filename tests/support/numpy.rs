//! Numbers that numpy's `default_rng` draws, bit for bit: a model of them needs no file.

use std::sync::LazyLock;

/// Where the ziggurat's lowest layer ends and the tail begins, for 256 layers, and the area of each.
const TAIL: f64 = 3.654_152_885_361_009;
const AREA: f64 = 0.004_928_673_233_974_655;

/// The generator PCG64 (XSL-RR) with numpy's ways to draw from it.
pub struct Generator {
    state: u128,
    increment: u128,
    /// The upper half of a number whose lower half was drawn.
    half: Option<u32>,
}

impl Generator {
    /// `numpy.random.default_rng(seed)`, for the seeds whose state is known here.
    pub fn new(seed: u64) -> Generator {
        let (state, increment) = match seed {
            1 => (
                0x9c5b484b_fedb756c_2a6e7d6f_320fbc7e,
                0x922af2da_2645f895_a19857b9_5740937b,
            ),
            2 => (
                0x692416b3_311ec79c_2a21eb1b_c4f483cc,
                0x5bae0a57_43882ba5_d1ad0f9f_2cb8dbef,
            ),
            _ => panic!("numpy's state for seed {seed} is not known"),
        };
        Generator {
            state,
            increment,
            half: None,
        }
    }

    fn next_u64(&mut self) -> u64 {
        const MULTIPLIER: u128 = 0x2360_ed05_1fc6_5da4_4385_df64_9fcc_f645;
        self.state = self
            .state
            .wrapping_mul(MULTIPLIER)
            .wrapping_add(self.increment);
        let folded = (self.state >> 64) as u64 ^ self.state as u64;
        folded.rotate_right((self.state >> 122) as u32)
    }

    fn next_u32(&mut self) -> u32 {
        self.half.take().unwrap_or_else(|| {
            let both = self.next_u64();
            self.half = Some((both >> 32) as u32);
            both as u32
        })
    }

    fn next_f64(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// `integers(0, 256, n, dtype=uint8)`.
    pub fn bytes(&mut self, n: usize) -> Vec<u8> {
        let words = (0..n.div_ceil(4)).map(|_| self.next_u32().to_le_bytes());
        let mut bytes: Vec<u8> = words.flatten().collect();
        bytes.truncate(n);
        bytes
    }

    /// `standard_normal()`: a ziggurat (Marsaglia and Tsang, 2000) with 52 bits for the place in a layer.
    pub fn normal(&mut self) -> f64 {
        let layers = &*LAYERS;
        loop {
            let bits = self.next_u64();
            let layer = (bits & 0xff) as usize;
            let negative = bits >> 8 & 1 == 1;
            let place = bits >> 9 & ((1 << 52) - 1);
            let x = place as f64 * layers.width[layer];
            let x = if negative { -x } else { x };
            if place < layers.inside[layer] {
                return x;
            }
            if layer == 0 {
                return self.tail(place >> 8 & 1 == 1);
            }
            let (low, high) = (layers.density[layer], layers.density[layer - 1]);
            if (high - low) * self.next_f64() + low < libm::exp(-0.5 * x * x) {
                return x;
            }
        }
    }

    fn tail(&mut self, negative: bool) -> f64 {
        loop {
            let x = -libm::log1p(-self.next_f64()) / TAIL;
            let y = -libm::log1p(-self.next_f64());
            if y + y > x * x {
                return if negative { -(TAIL + x) } else { TAIL + x };
            }
        }
    }
}

/// The ziggurat's layers, the lowest first and then from the top down.
struct Layers {
    /// Places below this one are inside of the curve wherever they are in the layer's height.
    inside: [u64; 256],
    /// The width of a place.
    width: [f64; 256],
    /// The curve at the layer's border.
    density: [f64; 256],
}

static LAYERS: LazyLock<Layers> = LazyLock::new(|| {
    const PLACES: f64 = (1_u64 << 52) as f64;
    let curve = |x: f64| libm::exp(-0.5 * x * x);
    let mut layers = Layers {
        inside: [0; 256],
        width: [0.0; 256],
        density: [1.0; 256],
    };
    let lowest = AREA / curve(TAIL);
    layers.inside[0] = (TAIL / lowest * PLACES) as u64;
    layers.width[0] = lowest / PLACES;
    let mut border = TAIL;
    for layer in (1..256).rev() {
        layers.width[layer] = border / PLACES;
        layers.density[layer] = curve(border);
        let above = libm::sqrt(-2.0 * libm::log(AREA / border + curve(border)));
        if layer > 1 {
            layers.inside[layer] = (above / border * PLACES) as u64;
            border = above;
        }
    }
    layers
});
