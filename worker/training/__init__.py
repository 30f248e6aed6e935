"""Fine-tuning by published recipes: `plan.plan_of` resolves one for a checkpoint and a dataset, `fine_tune.train` carries it out."""
