//! What an operation depends on, in words: where to look when it is the first that differs.

use crate::backend::TensorName;

/// A sentence about the operation that wrote `name`.
pub fn depends_on(name: TensorName) -> String {
    let block = |part: &str| match name.layer {
        Some(layer) => format!("blk.{layer}.{part}"),
        None => part.to_owned(),
    };
    let product = |tensor: &str, input: &str| {
        format!(
            "the product of {} with {input}: the tensor's offset and type, its dequantization, the \
             matrix layout given to the product (transposes, leading dimensions), its bias",
            block(tensor)
        )
    };
    let norm = |tensor: &str, input: &str| {
        format!(
            "RMSNorm of {input}: its weight {} and the epsilon",
            block(tensor)
        )
    };
    match name.base {
        "embd" => "the rows of token_embd.weight that the token ids name: the tensor's offset and \
                   type, its dequantization, the ids"
            .to_owned(),
        "inp_scaled" => "the embeddings times the embedding scale".to_owned(),
        "attn_norm" => norm("attn_norm.weight", "the residual stream"),
        "attn_input" | "ffn_input" => {
            "the residual stream as it is, in the type that the products read".to_owned()
        }
        "Qcur_raw" => product("attn_q.weight", "attn_norm"),
        "Kcur_raw" => product("attn_k.weight", "attn_norm"),
        "Vcur" => product("attn_v.weight", "attn_norm"),
        "Qcur_normed" => norm("attn_q_norm.weight", "each query head or all of them"),
        "Kcur_normed" => norm("attn_k_norm.weight", "each key head or all of them"),
        "Qcur" | "Kcur" => {
            "RoPE: whether this layer has it, the pairing of elements, the position of each token, the \
             base and the scaling factors (and the norm of each head before it, where that is not reported apart, and \
             the queries' temperature behind it)"
                .to_owned()
        }
        "kqv_out" => {
            "attention: the causal mask and the window, the key head of each query head, the \
                      scale, the softmax, the pages of the KV cache"
                .to_owned()
        }
        "attn_out" => product("attn_output.weight", "kqv_out"),
        "attn_post_norm" => norm("post_attention_norm.weight", "the attention output"),
        "ffn_inp" | "sa_out" => "the residual stream plus the attention output, with the residual scale".to_owned(),
        "ffn_norm" => norm("ffn_norm.weight", "the residual stream"),
        "ffn_gate" => product("ffn_gate.weight", "ffn_norm"),
        "ffn_up" => product("ffn_up.weight", "ffn_norm"),
        "ffn_swiglu" => "silu(ffn_gate) * ffn_up: which of both is activated".to_owned(),
        "ffn_geglu" => {
            "gelu(ffn_gate) * ffn_up: which of both is activated, GELU's form".to_owned()
        }
        "ffn_moe_logits" => product("ffn_gate_inp.weight", "the normed residual stream, in f32"),
        "ffn_moe_topk" => "the choice of experts: the largest scores, the lower index among equals".to_owned(),
        "ffn_moe_weights" => "the softmax over the scores of all experts".to_owned(),
        "ffn_moe_weights_norm" => {
            "the softmax over the scores of all experts, divided by its sum over the chosen ones".to_owned()
        }
        "ffn_moe_gate" => product("ffn_gate_exps.weight", "ffn_norm, for each chosen expert"),
        "ffn_moe_up" => product("ffn_up_exps.weight", "ffn_norm, for each chosen expert"),
        "ffn_moe_swiglu" => {
            "silu(ffn_moe_gate) * ffn_moe_up: which of both is activated, the expert of each row".to_owned()
        }
        "ffn_moe_down" => product(
            "ffn_down_exps.weight",
            "the gated activations of each chosen expert",
        ),
        "ffn_moe_out" => "the sum of what the chosen experts found, times their weights".to_owned(),
        "ffn_shexp" => product("ffn_down_shexp.weight", "the gated activations"),
        "ffn_shexp_gate" => {
            "the sigmoid of the product of ffn_gate_inp_shexp.weight with ffn_norm".to_owned()
        }
        "ffn_out" => format!(
            "{}; with experts the sum of what they found, times their weights, and of the shared one times its gate",
            product("ffn_down.weight", "the gated activations")
        ),
        "ffn_post_norm" => norm("post_ffw_norm.weight", "the feed-forward output"),
        "l_out" => {
            "the residual stream plus the feed-forward output, with the residual scale".to_owned()
        }
        "norm" | "result_norm" => norm("output_norm.weight", "the residual stream"),
        "result_output" => "the product of the output matrix (output.weight, or token_embd.weight \
                            where it is tied) with result_norm"
            .to_owned(),
        other => format!("the operation {other}"),
    }
}
