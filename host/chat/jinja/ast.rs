//! A parsed template. Expressions lie in one list and name each other by index: so a hostile chain
//! of a million of them is dropped without recursion.

/// An expression's place in [`Template::exprs`].
pub type ExprId = usize;

#[derive(Debug)]
pub struct Template {
    pub body: Vec<Stmt>,
    pub exprs: Vec<Expr>,
    /// The line of each expression.
    pub lines: Vec<u32>,
}

#[derive(Clone, Debug)]
pub enum Const {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BinaryOp {
    Add,
    Sub,
    Mul,
    Div,
    FloorDiv,
    Mod,
    Pow,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompareOp {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    In,
    NotIn,
}

/// The arguments of a call, a filter or a test.
#[derive(Debug, Default)]
pub struct Args {
    pub positional: Vec<ExprId>,
    pub named: Vec<(String, ExprId)>,
    /// `*list`
    pub rest: Option<ExprId>,
    /// `**dict`
    pub named_rest: Option<ExprId>,
}

#[derive(Debug)]
pub enum Expr {
    Const(Const),
    Name(String),
    List(Vec<ExprId>),
    Tuple(Vec<ExprId>),
    Dict(Vec<(ExprId, ExprId)>),
    Filter {
        /// None where the filter is a block's.
        input: Option<ExprId>,
        name: String,
        args: Args,
    },
    Test {
        input: ExprId,
        name: String,
        args: Args,
    },
    Not(ExprId),
    Negative(ExprId),
    Positive(ExprId),
    Binary(BinaryOp, ExprId, ExprId),
    And(ExprId, ExprId),
    Or(ExprId, ExprId),
    Compare(ExprId, Vec<(CompareOp, ExprId)>),
    Concat(Vec<ExprId>),
    If {
        test: ExprId,
        then: ExprId,
        otherwise: Option<ExprId>,
    },
    Attribute(ExprId, String),
    Item(ExprId, ExprId),
    Slice(ExprId, [Option<ExprId>; 3]),
    Call(ExprId, Args),
}

/// What `set`, `for` and `with` assign to.
#[derive(Debug)]
pub enum Target {
    Name(String),
    /// `namespace.attribute`
    Attribute(String, String),
    Tuple(Vec<Target>),
}

/// What macros and call blocks take.
#[derive(Debug, Default)]
pub struct Signature {
    /// Names, and defaults of those that have one.
    pub params: Vec<(String, Option<ExprId>)>,
    /// The body reads `varargs` or `kwargs`.
    pub takes_rest: bool,
    pub takes_named_rest: bool,
}

#[derive(Debug)]
pub struct For {
    pub target: Target,
    pub iter: ExprId,
    pub test: Option<ExprId>,
    pub recursive: bool,
    pub body: Vec<Stmt>,
    pub otherwise: Vec<Stmt>,
}

#[derive(Debug)]
pub struct Macro {
    pub name: String,
    pub signature: Signature,
    pub body: Vec<Stmt>,
}

#[derive(Debug)]
pub enum Stmt {
    Data(String),
    Output(ExprId),
    /// Conditions with their bodies; the last one's is absent for `else`.
    If(Vec<(Option<ExprId>, Vec<Stmt>)>),
    For(Box<For>),
    Set(Target, ExprId),
    /// `{% set x | filter %}...{% endset %}`
    SetBlock(Target, Option<ExprId>, Vec<Stmt>),
    Macro(Box<Macro>),
    Call(ExprId, Box<Macro>),
    Filter(ExprId, Vec<Stmt>),
    With(Vec<(Target, ExprId)>, Vec<Stmt>),
    /// A body in a scope of its own: `generation`, `block`, `autoescape`.
    Scope(Vec<Stmt>),
    Break,
    Continue,
}
