//! Arithmetic, logic, comparison and selection.

use crate::error::Result;
use crate::lower::builder::Builder;
use crate::lower::modifiers::Modifiers;
use crate::lower::operand_error;
use crate::module::{Instruction, Operand};
use crate::op::{
    Alu, Approx, Bin32, Bin64, BoolOp, Cmp, Combine, CompareTy, FloatMode, FloatOp, FloatTest,
    HalfFormat, HalfMode, HalfOp, Permute, Round, Shift, Tri32, Tri64, Un32, Un64,
};
use crate::ty::Ty;

/// Integer operations by width and sign: 16 bits, 32 bits, 64 bits.
type IntegerOps = (Bin32, Bin32, Bin64);

impl Builder<'_> {
    pub fn lower_alu(&mut self, at: &Instruction, name: &str, m: &mut Modifiers) -> Result<bool> {
        match name {
            "add" | "sub" | "addc" | "subc" => self.add(at, name, m)?,
            "mul" | "mad" => self.multiply(at, name, m)?,
            "fma" => {
                let ty = m.ty()?;
                self.float(at, m, FloatOp::Fma, ty)?;
            }
            "div" | "rem" | "min" | "max" => self.divide_or_order(at, name, m)?,
            "and" | "or" | "xor" | "not" | "cnot" => self.logic(at, name, m)?,
            "shl" | "shr" => self.shift(at, name, m)?,
            "neg" | "abs" | "popc" | "clz" | "brev" | "bfind" => self.unary(at, name, m)?,
            "sqrt" | "rcp" | "rsqrt" | "ex2" | "lg2" | "sin" | "cos" | "tanh" => {
                self.transcendental(at, name, m)?;
            }
            "setp" | "set" => self.compare(at, name, m)?,
            "selp" | "slct" => self.select(at, name, m)?,
            "lop3" => {
                m.ty()?;
                let [d, a, b, c, Operand::Int(lut @ 0..=255)] = &at.operands[..] else {
                    return Err(operand_error(at, "expected three sources and a table"));
                };
                let [a, b, c] = [a, b, c].map(|source| self.src(at, source, Ty::B32));
                let d = self.dst(at, d, Ty::B32)?;
                self.alu(Alu::Lop3 {
                    lut: lut.to_le_bytes()[0],
                    d,
                    a: a?,
                    b: b?,
                    c: c?,
                });
            }
            "prmt" | "shf" | "bfe" | "bfi" | "dp4a" | "dp2a" | "sad" | "mul24" | "mad24"
            | "bmsk" => self.bits(at, name, m)?,
            "copysign" => match m.ty()? {
                Ty::F32 => self.bin32(at, Bin32::CopySign, Ty::F32, Ty::F32)?,
                _ => self.bin64(at, Bin64::CopySign, Ty::F64)?,
            },
            "testp" => {
                let test = m.one_of(&[
                    ("finite", FloatTest::Finite),
                    ("infinite", FloatTest::Infinite),
                    ("number", FloatTest::Number),
                    ("notanumber", FloatTest::NotANumber),
                    ("normal", FloatTest::Normal),
                    ("subnormal", FloatTest::Subnormal),
                ])?;
                let [p, a] = self.operands(at)?;
                if m.ty()? != Ty::F32 {
                    return Err(m.unknown());
                }
                let a = self.src(at, a, Ty::F32)?;
                let p = self.dst_pred(at, p)?;
                self.alu(Alu::TestFloat { test, p, a });
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    pub fn operands<'i, const N: usize>(&self, at: &'i Instruction) -> Result<[&'i Operand; N]> {
        let found = at.operands.iter().collect::<Vec<_>>();
        found
            .try_into()
            .map_err(|_| operand_error(at, &format!("expected {N} operands")))
    }

    fn un32(&mut self, at: &Instruction, op: Un32, to: Ty, from: Ty) -> Result<()> {
        let [d, a] = self.operands(at)?;
        let a = self.src(at, a, from)?;
        let d = self.dst(at, d, to)?;
        self.alu(Alu::Un32(op, d, a));
        Ok(())
    }

    fn un64(&mut self, at: &Instruction, op: Un64) -> Result<()> {
        let [d, a] = self.operands(at)?;
        let a = self.src(at, a, Ty::B64)?;
        let d = self.dst(at, d, Ty::B64)?;
        self.alu(Alu::Un64(op, d, a));
        Ok(())
    }

    fn bin32(&mut self, at: &Instruction, op: Bin32, to: Ty, from: Ty) -> Result<()> {
        let [d, a, b] = self.operands(at)?;
        let (a, b) = (self.src(at, a, from)?, self.src(at, b, from)?);
        let d = self.dst(at, d, to)?;
        self.alu(Alu::Bin32(op, d, a, b));
        Ok(())
    }

    fn bin64(&mut self, at: &Instruction, op: Bin64, ty: Ty) -> Result<()> {
        let [d, a, b] = self.operands(at)?;
        let (a, b) = (self.src(at, a, ty)?, self.src(at, b, ty)?);
        let d = self.dst(at, d, ty)?;
        self.alu(Alu::Bin64(op, d, a, b));
        Ok(())
    }

    fn tri32(&mut self, at: &Instruction, op: Tri32, ty: Ty, accumulator: Ty) -> Result<()> {
        let [d, a, b, c] = self.operands(at)?;
        let (a, b) = (self.src(at, a, ty)?, self.src(at, b, ty)?);
        let c = self.src(at, c, accumulator)?;
        let d = self.dst(at, d, accumulator)?;
        self.alu(Alu::Tri32(op, d, a, b, c));
        Ok(())
    }

    fn integer(&mut self, at: &Instruction, m: &Modifiers, ops: IntegerOps, ty: Ty) -> Result<()> {
        match ty.bytes() {
            2 => self.bin32(at, ops.0, ty, ty),
            4 => self.bin32(at, ops.1, ty, ty),
            8 => self.bin64(at, ops.2, ty),
            _ => Err(m.unknown()),
        }
    }

    fn add(&mut self, at: &Instruction, name: &str, m: &mut Modifiers) -> Result<()> {
        let subtract = name.starts_with("sub");
        let ty = m.ty()?;
        if ty.is_float() {
            return self.float(
                at,
                m,
                if subtract { FloatOp::Sub } else { FloatOp::Add },
                ty,
            );
        }
        let carry_in = name.ends_with('c');
        let carry_out = m.take("cc");
        if carry_in || carry_out {
            let [d, a, b] = self.operands(at)?;
            if ty.bytes() < 4 || !ty.is_integer() {
                return Err(m.unknown());
            }
            let a = self.column_of(at, a, ty)?;
            let b = self.column_of(at, b, ty)?;
            self.dst(at, d, ty)?;
            let d = self.column_of(at, d, ty)?;
            let cc = self.carry();
            self.alu(Alu::Carry {
                subtract,
                carry_in,
                carry_out,
                cc,
                d,
                a,
                b,
            });
            return Ok(());
        }
        if m.take("sat") {
            if ty != Ty::S32 {
                return Err(m.unknown());
            }
            return self.bin32(
                at,
                if subtract {
                    Bin32::SubSatS
                } else {
                    Bin32::AddSatS
                },
                ty,
                ty,
            );
        }
        if !ty.is_integer() {
            return Err(m.unknown());
        }
        if subtract {
            self.integer(at, m, (Bin32::Sub16, Bin32::Sub, Bin64::Sub), ty)
        } else {
            self.integer(at, m, (Bin32::Add16, Bin32::Add, Bin64::Add), ty)
        }
    }

    fn multiply(&mut self, at: &Instruction, name: &str, m: &mut Modifiers) -> Result<()> {
        let ty = m.ty()?;
        let multiply_add = name == "mad";
        if ty.is_float() {
            return self.float(
                at,
                m,
                if multiply_add {
                    FloatOp::Fma
                } else {
                    FloatOp::Mul
                },
                ty,
            );
        }
        let signed = ty.is_signed();
        if !ty.is_integer() {
            return Err(m.unknown());
        }
        if m.take("wide") {
            return self.multiply_wide(at, m, multiply_add, ty);
        }
        let high = m.take("hi");
        if !high && !m.take("lo") {
            return Err(m.unknown());
        }
        match (multiply_add, high) {
            (false, false) => self.integer(at, m, (Bin32::MulLo16, Bin32::MulLo, Bin64::MulLo), ty),
            (false, true) if signed => {
                self.integer(at, m, (Bin32::MulHiS16, Bin32::MulHiS, Bin64::MulHiS), ty)
            }
            (false, true) => {
                self.integer(at, m, (Bin32::MulHiU16, Bin32::MulHiU, Bin64::MulHiU), ty)
            }
            (true, _) => {
                let (narrow, wide) = match (high, signed) {
                    (false, _) => (Tri32::MadLo, Tri64::MadLo),
                    (true, false) => (Tri32::MadHiU, Tri64::MadHiU),
                    (true, true) => (Tri32::MadHiS, Tri64::MadHiS),
                };
                match ty.bytes() {
                    2 if !high => self.tri32(at, Tri32::MadLo16, ty, ty),
                    4 => self.tri32(at, narrow, ty, ty),
                    8 => {
                        let [d, a, b, c] = self.operands(at)?;
                        let [a, b, c] = [a, b, c].map(|source| self.src(at, source, ty));
                        let d = self.dst(at, d, ty)?;
                        self.alu(Alu::Tri64(wide, d, a?, b?, c?));
                        Ok(())
                    }
                    _ => Err(m.unknown()),
                }
            }
        }
    }

    fn multiply_wide(
        &mut self,
        at: &Instruction,
        m: &Modifiers,
        multiply_add: bool,
        ty: Ty,
    ) -> Result<()> {
        let signed = ty.is_signed();
        match (ty.bytes(), multiply_add) {
            (2, false) => {
                let op = if signed {
                    Bin32::MulWideS16
                } else {
                    Bin32::MulWideU16
                };
                self.bin32(at, op, Ty::B32, ty)
            }
            (2, true) => {
                let op = if signed {
                    Tri32::MadWideS16
                } else {
                    Tri32::MadWideU16
                };
                self.tri32(at, op, ty, Ty::B32)
            }
            (4, false) => {
                let [d, a, b] = self.operands(at)?;
                let (a, b) = (self.src(at, a, ty)?, self.src(at, b, ty)?);
                let d = self.dst(at, d, Ty::B64)?;
                self.alu(Alu::MulWide { signed, d, a, b });
                Ok(())
            }
            (4, true) => {
                let [d, a, b, c] = self.operands(at)?;
                let (a, b) = (self.src(at, a, ty)?, self.src(at, b, ty)?);
                let c = self.src(at, c, Ty::B64)?;
                let d = self.dst(at, d, Ty::B64)?;
                self.alu(Alu::MadWide { signed, d, a, b, c });
                Ok(())
            }
            _ => Err(m.unknown()),
        }
    }

    fn divide_or_order(&mut self, at: &Instruction, name: &str, m: &mut Modifiers) -> Result<()> {
        let ty = m.ty()?;
        if ty.is_float() {
            let op = match name {
                "div" => FloatOp::Div,
                "min" => FloatOp::Min,
                "max" => FloatOp::Max,
                _ => return Err(m.unknown()),
            };
            return self.float(at, m, op, ty);
        }
        if !ty.is_integer() {
            return Err(m.unknown());
        }
        let ops = match (name, ty.is_signed()) {
            ("div", false) => (Bin32::DivU16, Bin32::DivU, Bin64::DivU),
            ("div", true) => (Bin32::DivS16, Bin32::DivS, Bin64::DivS),
            ("rem", false) => (Bin32::RemU16, Bin32::RemU, Bin64::RemU),
            ("rem", true) => (Bin32::RemS16, Bin32::RemS, Bin64::RemS),
            ("min", false) => (Bin32::MinU16, Bin32::MinU, Bin64::MinU),
            ("min", true) => (Bin32::MinS16, Bin32::MinS, Bin64::MinS),
            (_, false) => (Bin32::MaxU16, Bin32::MaxU, Bin64::MaxU),
            (_, true) => (Bin32::MaxS16, Bin32::MaxS, Bin64::MaxS),
        };
        self.integer(at, m, ops, ty)
    }

    /// Floating-point arithmetic of any format.
    fn float(&mut self, at: &Instruction, m: &mut Modifiers, op: FloatOp, ty: Ty) -> Result<()> {
        let round = m.take_round();
        let ftz = m.take("ftz");
        let sat = m.take("sat");
        let nan = m.take("NaN");
        if matches!(op, FloatOp::Div) {
            // Both approximations stay within their documented 2 ulp when the quotient is exact.
            m.discard(|part| part == "full" || part == "approx");
        }
        let mode = FloatMode {
            round: round.unwrap_or(Round::Nearest),
            ftz,
            sat,
            nan,
        };
        match ty {
            Ty::F32 => self.float32(at, op, mode),
            Ty::F64
                if mode
                    == FloatMode {
                        round: Round::Nearest,
                        ftz: false,
                        sat: false,
                        nan,
                    } =>
            {
                if nan {
                    return Err(m.unknown());
                }
                let op = match op {
                    FloatOp::Add => Bin64::AddF64,
                    FloatOp::Sub => Bin64::SubF64,
                    FloatOp::Mul => Bin64::MulF64,
                    FloatOp::Div => Bin64::DivF64,
                    FloatOp::Min => Bin64::MinF64,
                    FloatOp::Max => Bin64::MaxF64,
                    FloatOp::Fma => {
                        let [d, a, b, c] = self.operands(at)?;
                        let [a, b, c] = [a, b, c].map(|source| self.src(at, source, ty));
                        let d = self.dst(at, d, ty)?;
                        self.alu(Alu::Tri64(Tri64::FmaF64, d, a?, b?, c?));
                        return Ok(());
                    }
                    _ => return Err(m.unknown()),
                };
                self.bin64(at, op, ty)
            }
            Ty::F16 | Ty::F16x2 | Ty::Bf16 | Ty::Bf16x2 if mode.round == Round::Nearest => {
                self.half(at, m, op, mode, ty)
            }
            _ => Err(m.unknown()),
        }
    }

    fn float32(&mut self, at: &Instruction, op: FloatOp, mode: FloatMode) -> Result<()> {
        let plain = FloatMode {
            round: Round::Nearest,
            ftz: false,
            sat: false,
            nan: false,
        };
        let fast = match op {
            FloatOp::Add => Some(Bin32::AddF32),
            FloatOp::Sub => Some(Bin32::SubF32),
            FloatOp::Mul => Some(Bin32::MulF32),
            FloatOp::Div => Some(Bin32::DivF32),
            FloatOp::Min => Some(Bin32::MinF32),
            FloatOp::Max => Some(Bin32::MaxF32),
            _ => None,
        };
        if mode == plain {
            if let Some(op) = fast {
                return self.bin32(at, op, Ty::F32, Ty::F32);
            }
            if op == FloatOp::Fma {
                return self.tri32(at, Tri32::FmaF32, Ty::F32, Ty::F32);
            }
        }
        self.float_sources(at, op, Ty::F32, |d, sources| {
            Alu::Float(op, mode, d, sources)
        })
    }

    /// Emits an operation on one, two or three sources; missing ones repeat the last.
    fn float_sources(
        &mut self,
        at: &Instruction,
        op: FloatOp,
        ty: Ty,
        make: impl Fn(u32, [u32; 3]) -> Alu,
    ) -> Result<()> {
        let count = match op {
            FloatOp::Fma => 3,
            FloatOp::Sqrt | FloatOp::Rcp | FloatOp::Abs | FloatOp::Neg => 1,
            _ => 2,
        };
        let [d, sources @ ..] = &at.operands[..] else {
            return Err(operand_error(at, "expected a destination"));
        };
        // `min` and `max` have a three-input form on newer devices, which is not known here.
        if sources.len() != count {
            return Err(operand_error(at, &format!("expected {count} sources")));
        }
        let mut columns = [0; 3];
        for (column, source) in columns.iter_mut().zip(sources) {
            *column = self.src(at, source, ty)?;
        }
        for missing in count..3 {
            columns[missing] = columns[count - 1];
        }
        let d = self.dst(at, d, ty)?;
        self.alu(make(d, columns));
        Ok(())
    }

    fn half(
        &mut self,
        at: &Instruction,
        m: &mut Modifiers,
        op: FloatOp,
        mode: FloatMode,
        ty: Ty,
    ) -> Result<()> {
        let half_op = match op {
            FloatOp::Add => HalfOp::Add,
            FloatOp::Sub => HalfOp::Sub,
            FloatOp::Mul => HalfOp::Mul,
            FloatOp::Fma => HalfOp::Fma,
            FloatOp::Min => HalfOp::Min,
            FloatOp::Max => HalfOp::Max,
            _ => return Err(m.unknown()),
        };
        let mode = HalfMode {
            format: half_format(ty).ok_or_else(|| m.unknown())?,
            ftz: mode.ftz,
            sat: mode.sat,
            relu: m.take("relu"),
            nan: mode.nan,
        };
        self.float_sources(at, op, ty, |d, sources| {
            Alu::Half(half_op, mode, d, sources)
        })
    }

    fn logic(&mut self, at: &Instruction, name: &str, m: &mut Modifiers) -> Result<()> {
        let ty = m.ty()?;
        if ty == Ty::Pred {
            return self.logic_pred(at, name, m);
        }
        let ops = match name {
            "and" => (Bin32::And, Bin32::And, Bin64::And),
            "or" => (Bin32::Or, Bin32::Or, Bin64::Or),
            "xor" => (Bin32::Xor, Bin32::Xor, Bin64::Xor),
            "not" => {
                return match ty.bytes() {
                    2 => self.un32(at, Un32::Not16, ty, ty),
                    4 => self.un32(at, Un32::Not, ty, ty),
                    8 => self.un64(at, Un64::Not),
                    _ => Err(m.unknown()),
                };
            }
            _ => {
                return match ty.bytes() {
                    2 | 4 => self.un32(at, Un32::Cnot, ty, ty),
                    8 => self.un64(at, Un64::Cnot),
                    _ => Err(m.unknown()),
                };
            }
        };
        self.integer(at, m, ops, ty)
    }

    fn logic_pred(&mut self, at: &Instruction, name: &str, m: &Modifiers) -> Result<()> {
        let op = match name {
            "and" => BoolOp::And,
            "or" => BoolOp::Or,
            "xor" => BoolOp::Xor,
            "not" => {
                let [d, a] = self.operands(at)?;
                let (a, negated) = self.src_pred(at, a)?;
                let d = self.dst_pred(at, d)?;
                self.alu(if negated {
                    Alu::Pred(BoolOp::Or, d, a, a)
                } else {
                    Alu::NotPred { d, a }
                });
                return Ok(());
            }
            _ => return Err(m.unknown()),
        };
        let [d, a, b] = self.operands(at)?;
        let (a, b) = (self.plain_pred(at, a)?, self.plain_pred(at, b)?);
        let d = self.dst_pred(at, d)?;
        self.alu(Alu::Pred(op, d, a, b));
        Ok(())
    }

    /// A predicate source with its negation applied.
    fn plain_pred(&mut self, at: &Instruction, operand: &Operand) -> Result<u32> {
        let (a, negated) = self.src_pred(at, operand)?;
        if !negated {
            return Ok(a);
        }
        let d = self.new_predicate();
        self.alu(Alu::NotPred { d, a });
        Ok(d)
    }

    fn shift(&mut self, at: &Instruction, name: &str, m: &mut Modifiers) -> Result<()> {
        let ty = m.ty()?;
        let (narrow, word, wide) = match (name, ty.is_signed()) {
            ("shl", _) => (Bin32::Shl16, Bin32::Shl, Shift::Left),
            (_, false) => (Bin32::ShrU16, Bin32::ShrU, Shift::RightU),
            (_, true) => (Bin32::ShrS16, Bin32::ShrS, Shift::RightS),
        };
        let [d, a, b] = self.operands(at)?;
        let a = self.src(at, a, ty)?;
        let b = self.src(at, b, Ty::U32)?;
        let d = self.dst(at, d, ty)?;
        self.alu(match ty.bytes() {
            2 => Alu::Bin32(narrow, d, a, b),
            4 => Alu::Bin32(word, d, a, b),
            8 => Alu::Shift64(wide, d, a, b),
            _ => return Err(m.unknown()),
        });
        Ok(())
    }

    fn unary(&mut self, at: &Instruction, name: &str, m: &mut Modifiers) -> Result<()> {
        use crate::op::Narrow;
        let ty = m.ty()?;
        let wide = ty.bytes() == 8;
        let counts = match name {
            "popc" => Some((Un32::Popc, Narrow::Popc)),
            "clz" => Some((Un32::Clz, Narrow::Clz)),
            "bfind" if m.take("shiftamt") => Some(match (ty.is_signed(), wide) {
                (_, true) => return Err(m.unknown()),
                (true, _) => (Un32::ShiftFindS, Narrow::FindS),
                (false, _) => (Un32::ShiftFindU, Narrow::FindU),
            }),
            "bfind" if ty.is_signed() => Some((Un32::FindS, Narrow::FindS)),
            "bfind" => Some((Un32::FindU, Narrow::FindU)),
            _ => None,
        };
        if let Some((narrow_op, wide_op)) = counts {
            let [d, a] = self.operands(at)?;
            let a = self.src(at, a, ty)?;
            let d = self.dst(at, d, Ty::U32)?;
            self.alu(match ty.bytes() {
                4 => Alu::Un32(narrow_op, d, a),
                8 => Alu::Narrow(wide_op, d, a),
                _ => return Err(m.unknown()),
            });
            return Ok(());
        }
        let ftz = m.take("ftz");
        let op = match (name, ty) {
            ("neg" | "abs", Ty::F32) if ftz => {
                let op = if name == "neg" {
                    FloatOp::Neg
                } else {
                    FloatOp::Abs
                };
                return self.float32(
                    at,
                    op,
                    FloatMode {
                        round: Round::Nearest,
                        ftz,
                        sat: false,
                        nan: false,
                    },
                );
            }
            _ if ftz => return Err(m.unknown()),
            ("neg", Ty::S16) => Un32::Neg16,
            ("neg", Ty::S32) => Un32::Neg,
            ("neg", Ty::S64) => return self.un64(at, Un64::Neg),
            ("neg", Ty::F32) => Un32::NegF32,
            ("neg", Ty::F64) => return self.un64(at, Un64::NegF64),
            ("neg", Ty::F16 | Ty::Bf16) => Un32::NegHalf,
            ("neg", Ty::F16x2 | Ty::Bf16x2) => Un32::NegHalf2,
            ("abs", Ty::S16) => Un32::Abs16,
            ("abs", Ty::S32) => Un32::Abs,
            ("abs", Ty::S64) => return self.un64(at, Un64::Abs),
            ("abs", Ty::F32) => Un32::AbsF32,
            ("abs", Ty::F64) => return self.un64(at, Un64::AbsF64),
            ("abs", Ty::F16 | Ty::Bf16) => Un32::AbsHalf,
            ("abs", Ty::F16x2 | Ty::Bf16x2) => Un32::AbsHalf2,
            ("brev", Ty::B32) => Un32::Brev,
            ("brev", Ty::B64) => return self.un64(at, Un64::Brev),
            _ => return Err(m.unknown()),
        };
        self.un32(at, op, ty, ty)
    }

    fn transcendental(&mut self, at: &Instruction, name: &str, m: &mut Modifiers) -> Result<()> {
        let ty = m.ty()?;
        let approx = m.take("approx");
        let ftz = m.take("ftz");
        if let Some(format) = half_format(ty) {
            let op = match name {
                "ex2" => Approx::Exp2Half(format),
                "tanh" => Approx::TanhHalf(format),
                _ => return Err(m.unknown()),
            };
            let [d, a] = self.operands(at)?;
            let (a, d) = (self.src(at, a, ty)?, self.dst(at, d, ty)?);
            self.alu(Alu::Approx(op, ftz, d, a));
            return Ok(());
        }
        if !approx {
            let round = m.take_round().ok_or_else(|| m.unknown())?;
            let (plain, op, wide) = match name {
                "sqrt" => (Un32::SqrtF32, FloatOp::Sqrt, Un64::SqrtF64),
                "rcp" => (Un32::RcpF32, FloatOp::Rcp, Un64::RcpF64),
                _ => return Err(m.unknown()),
            };
            return match ty {
                Ty::F64 if round == Round::Nearest && !ftz => self.un64(at, wide),
                Ty::F32 if round == Round::Nearest && !ftz => self.un32(at, plain, ty, ty),
                Ty::F32 => self.float32(
                    at,
                    op,
                    FloatMode {
                        round,
                        ftz,
                        sat: false,
                        nan: false,
                    },
                ),
                _ => Err(m.unknown()),
            };
        }
        if ty != Ty::F32 {
            return Err(m.unknown());
        }
        let op = match name {
            "ex2" => Approx::Exp2,
            "lg2" => Approx::Log2,
            "rsqrt" => Approx::Rsqrt,
            "rcp" => Approx::Rcp,
            "sqrt" => Approx::Sqrt,
            "sin" => Approx::Sin,
            "cos" => Approx::Cos,
            _ => Approx::Tanh,
        };
        let [d, a] = self.operands(at)?;
        let (a, d) = (self.src(at, a, ty)?, self.dst(at, d, ty)?);
        self.alu(Alu::Approx(op, ftz, d, a));
        Ok(())
    }

    fn compare(&mut self, at: &Instruction, name: &str, m: &mut Modifiers) -> Result<()> {
        let Some((cmp, unsigned)) = m.take_one_of(&COMPARISONS) else {
            return Err(m.unknown());
        };
        let op = m.take_one_of(&[
            ("and", BoolOp::And),
            ("or", BoolOp::Or),
            ("xor", BoolOp::Xor),
        ]);
        let first = m.ty()?;
        let ftz = m.take("ftz");
        let is_set = name == "set";
        let result = first;
        let ty = if is_set { m.ty()? } else { first };
        let compare_ty = match ty {
            Ty::F32 if ftz => CompareTy::F32Ftz,
            Ty::F32 => CompareTy::F32,
            Ty::F64 => CompareTy::F64,
            Ty::F16 => CompareTy::F16,
            Ty::Bf16 => CompareTy::Bf16,
            Ty::S16 => CompareTy::S16,
            Ty::S32 => CompareTy::S32,
            Ty::S64 if !unsigned => CompareTy::S64,
            Ty::B16 | Ty::U16 | Ty::B32 | Ty::U32 => CompareTy::U32,
            Ty::B64 | Ty::U64 | Ty::S64 => CompareTy::U64,
            _ => return Err(m.unknown()),
        };
        let (d, a, b, c) = match &at.operands[..] {
            [d, a, b] if op.is_none() => (d, a, b, None),
            [d, a, b, c] if op.is_some() => (d, a, b, Some(c)),
            _ => return Err(operand_error(at, "wrong number of operands")),
        };
        let (a, b) = (self.src(at, a, ty)?, self.src(at, b, ty)?);
        let combine = match (op, c) {
            (Some(op), Some(c)) => {
                let (c, negated) = self.src_pred(at, c)?;
                Some(Combine { op, c, negated })
            }
            _ => None,
        };
        if is_set {
            let p = self.new_predicate();
            let q = self.new_predicate();
            self.alu(Alu::Compare {
                ty: compare_ty,
                cmp,
                p,
                q,
                a,
                b,
                combine,
            });
            if result.bytes() != 4 {
                return Err(m.unknown());
            }
            let yes = self.word(if result == Ty::F32 {
                1f32.to_bits()
            } else {
                u32::MAX
            });
            let no = self.word(0);
            let d = self.dst(at, d, result)?;
            self.alu(Alu::Select32 {
                d,
                a: yes,
                b: no,
                p,
            });
            return Ok(());
        }
        let (p, q) = match d {
            Operand::Pair(p, q) => (self.dst_pred(at, p)?, self.dst_pred(at, q)?),
            _ => (self.dst_pred(at, d)?, crate::op::NONE),
        };
        self.alu(Alu::Compare {
            ty: compare_ty,
            cmp,
            p,
            q,
            a,
            b,
            combine,
        });
        Ok(())
    }

    fn select(&mut self, at: &Instruction, name: &str, m: &mut Modifiers) -> Result<()> {
        let ty = m.ty()?;
        let [d, a, b, c] = self.operands(at)?;
        let (a, b) = (self.src(at, a, ty)?, self.src(at, b, ty)?);
        let p = if name == "selp" {
            self.plain_pred(at, c)?
        } else {
            m.take("ftz");
            let compare_ty = match m.ty()? {
                Ty::S32 => CompareTy::S32,
                Ty::F32 => CompareTy::F32,
                _ => return Err(m.unknown()),
            };
            let c = self.src(at, c, Ty::B32)?;
            let zero = self.word(0);
            let p = self.new_predicate();
            self.alu(Alu::Compare {
                ty: compare_ty,
                cmp: Cmp::Ge,
                p,
                q: crate::op::NONE,
                a: c,
                b: zero,
                combine: None,
            });
            p
        };
        let d = self.dst(at, d, ty)?;
        self.alu(if ty.bytes() == 8 {
            Alu::Select64 { d, a, b, p }
        } else {
            Alu::Select32 { d, a, b, p }
        });
        Ok(())
    }

    /// Bit fields, byte permutation, funnel shifts, packed dot products.
    fn bits(&mut self, at: &Instruction, name: &str, m: &mut Modifiers) -> Result<()> {
        let op = match name {
            "prmt" => Tri32::Permute(
                m.take_one_of(&[
                    ("f4e", Permute::Forward4),
                    ("b4e", Permute::Backward4),
                    ("rc8", Permute::Replicate8),
                    ("ecl", Permute::EdgeLeft),
                    ("ecr", Permute::EdgeRight),
                    ("rc16", Permute::Replicate16),
                ])
                .unwrap_or(Permute::Index),
            ),
            "shf" => {
                let left = m.take("l");
                if !left && !m.take("r") {
                    return Err(m.unknown());
                }
                let wrap = m.take("wrap");
                if !wrap && !m.take("clamp") {
                    return Err(m.unknown());
                }
                match (left, wrap) {
                    (true, true) => Tri32::FunnelLeftWrap,
                    (true, false) => Tri32::FunnelLeftClamp,
                    (false, true) => Tri32::FunnelRightWrap,
                    (false, false) => Tri32::FunnelRightClamp,
                }
            }
            "dp4a" => {
                let (a, b) = (m.ty()?, m.ty()?);
                Tri32::Dp4a(a.is_signed(), b.is_signed())
            }
            "dp2a" => {
                let (a, b) = (m.ty()?, m.ty()?);
                if m.take("hi") {
                    Tri32::Dp2aHigh(a.is_signed(), b.is_signed())
                } else if m.take("lo") {
                    Tri32::Dp2aLow(a.is_signed(), b.is_signed())
                } else {
                    return Err(m.unknown());
                }
            }
            "bmsk" => {
                m.ty()?;
                let op =
                    m.one_of(&[("clamp", Bin32::BitMaskClamp), ("wrap", Bin32::BitMaskWrap)])?;
                return self.bin32(at, op, Ty::B32, Ty::B32);
            }
            "mul24" | "mad24" => {
                let ty = m.ty()?;
                let op = if ty.is_signed() {
                    Bin32::Mul24S
                } else {
                    Bin32::Mul24U
                };
                if name == "mad24" || !m.take("lo") || ty.bytes() != 4 {
                    return Err(m.unknown());
                }
                return self.bin32(at, op, ty, ty);
            }
            "bfe" | "bfi" => return self.bit_field(at, name, m),
            _ => {
                let ty = m.ty()?;
                if ty.bytes() != 4 {
                    return Err(m.unknown());
                }
                if ty.is_signed() {
                    Tri32::SadS
                } else {
                    Tri32::SadU
                }
            }
        };
        if matches!(name, "prmt" | "shf") && m.ty()? != Ty::B32 {
            return Err(m.unknown());
        }
        self.tri32(at, op, Ty::B32, Ty::B32)
    }

    fn bit_field(&mut self, at: &Instruction, name: &str, m: &mut Modifiers) -> Result<()> {
        let ty = m.ty()?;
        let wide = ty.bytes() == 8;
        if ty.bytes() < 4 || ty.is_float() {
            return Err(m.unknown());
        }
        let (d, a, b, position, length) = match (name, &at.operands[..]) {
            ("bfe", [d, a, position, length]) => (d, a, a, position, length),
            ("bfi", [d, a, b, position, length]) => (d, a, b, position, length),
            _ => return Err(operand_error(at, "wrong number of operands")),
        };
        let (a, b) = (self.src(at, a, ty)?, self.src(at, b, ty)?);
        let position = self.src(at, position, Ty::U32)?;
        let length = self.src(at, length, Ty::U32)?;
        let d = self.dst(at, d, ty)?;
        let signed = ty.is_signed();
        if name == "bfe" && !wide {
            let op = if signed {
                Tri32::ExtractS
            } else {
                Tri32::ExtractU
            };
            self.alu(Alu::Tri32(op, d, a, position, length));
            return Ok(());
        }
        let place = self.new32();
        self.alu(Alu::Bin32(Bin32::Pack8, place, position, length));
        self.alu(match (name, wide) {
            ("bfe", _) => Alu::Extract64 {
                signed,
                d,
                a,
                place,
            },
            (_, true) => Alu::Insert64 { d, a, b, place },
            (_, false) => Alu::Tri32(Tri32::Insert, d, a, b, place),
        });
        Ok(())
    }
}

pub(super) fn half_format(ty: Ty) -> Option<HalfFormat> {
    Some(match ty {
        Ty::F16 => HalfFormat::F16,
        Ty::F16x2 => HalfFormat::F16x2,
        Ty::Bf16 => HalfFormat::Bf16,
        Ty::Bf16x2 => HalfFormat::Bf16x2,
        _ => return None,
    })
}

/// Comparisons, and whether they are the unsigned forms `lo`, `ls`, `hi`, `hs`.
const COMPARISONS: [(&str, (Cmp, bool)); 18] = [
    ("eq", (Cmp::Eq, false)),
    ("ne", (Cmp::Ne, false)),
    ("lt", (Cmp::Lt, false)),
    ("le", (Cmp::Le, false)),
    ("gt", (Cmp::Gt, false)),
    ("ge", (Cmp::Ge, false)),
    ("lo", (Cmp::Lt, true)),
    ("ls", (Cmp::Le, true)),
    ("hi", (Cmp::Gt, true)),
    ("hs", (Cmp::Ge, true)),
    ("equ", (Cmp::Equ, false)),
    ("neu", (Cmp::Neu, false)),
    ("ltu", (Cmp::Ltu, false)),
    ("leu", (Cmp::Leu, false)),
    ("gtu", (Cmp::Gtu, false)),
    ("geu", (Cmp::Geu, false)),
    ("num", (Cmp::Num, false)),
    ("nan", (Cmp::Nan, false)),
];
