"""The dimensions of a DETR that trains in seconds."""


def small_detr(d_model: int = 64, num_queries: int = 12) -> dict[str, int]:
    return {
        "d_model": d_model,
        "encoder_layers": 1,
        "decoder_layers": 2,
        "encoder_ffn_dim": 32,
        "decoder_ffn_dim": 32,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 4,
        "num_queries": num_queries,
    }
