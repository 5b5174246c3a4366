//! `y = a x + y` on the simulator, and what the sanitizer says when the bound is wrong.

use ptx_sim::{Config, Launch, Memory, Module, Simulator};

const PTX: &str = "
.version 8.0
.target sm_80
.address_size 64

.visible .entry saxpy(
	.param .u64 x,
	.param .u64 y,
	.param .f32 a,
	.param .u32 n
)
{
	.reg .pred %p;
	.reg .b32 %r<8>;
	.reg .f32 %f<4>;
	.reg .b64 %rd<8>;

	ld.param.u32 %r0, [n];
	mov.u32 %r1, %ctaid.x;
	mov.u32 %r2, %ntid.x;
	mov.u32 %r3, %tid.x;
	mad.lo.u32 %r4, %r1, %r2, %r3;
	setp.ge.u32 %p, %r4, %r0;
	@%p bra $end;
	ld.param.u64 %rd0, [x];
	ld.param.u64 %rd1, [y];
	ld.param.f32 %f0, [a];
	mul.wide.u32 %rd2, %r4, 4;
	add.u64 %rd3, %rd0, %rd2;
	add.u64 %rd4, %rd1, %rd2;
	ld.global.f32 %f1, [%rd3];
	ld.global.f32 %f2, [%rd4];
	fma.rn.f32 %f3, %f0, %f1, %f2;
	st.global.f32 [%rd4], %f3;
$end:
	ret;
}";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let n = 1000u32;
    let x: Vec<f32> = (0..n).map(|i| i as f32).collect();
    let module = Module::parse(PTX)?;

    let mut memory = Memory::new();
    let bytes: Vec<u8> = x.iter().flat_map(|value| value.to_le_bytes()).collect();
    let (device_x, device_y) = (
        memory.alloc(bytes.len(), "x")?,
        memory.alloc(bytes.len(), "y")?,
    );
    memory.write(device_x, &bytes)?;
    memory.write(device_y, &bytes)?;

    let params = |n: u32| {
        let mut params = Vec::new();
        params.extend(device_x.to_le_bytes());
        params.extend(device_y.to_le_bytes());
        params.extend(2.0f32.to_le_bytes());
        params.extend(n.to_le_bytes());
        params
    };
    let right = params(n);
    let launch = Launch {
        grid: [8, 1, 1],
        block: [128, 1, 1],
        dynamic_shared: 0,
        params: &right,
        dependent: false,
    };
    let simulator = Simulator::new(Config::default());
    let stats = simulator.launch(&memory, &module, "saxpy", &launch)?;

    let mut result = vec![0; bytes.len()];
    memory.read(device_y, &mut result)?;
    for (i, word) in result.as_chunks::<4>().0.iter().enumerate() {
        assert_eq!(f32::from_le_bytes(*word), 3.0 * x[i]);
    }
    println!("{} elements, {} thread-instructions", n, stats.instructions);

    let wrong = params(n + 1);
    let fault = simulator.launch(
        &memory,
        &module,
        "saxpy",
        &Launch {
            params: &wrong,
            ..launch
        },
    );
    println!(
        "with one element too many: {}",
        fault.expect_err("the bound is wrong")
    );
    Ok(())
}
