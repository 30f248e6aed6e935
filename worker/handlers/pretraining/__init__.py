"""The jobs of a pretraining: regions (`propose`), training (`learn`), and what becomes of both (`pretrain`)."""
