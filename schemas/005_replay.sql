-- SPDX-License-Identifier: MIT
-- What policies and samplers were told of a request, beside the columns that `request` began
-- with: all that `lathe replay` must know to tell them the same again. NULL in rows of before.

ALTER TABLE request ADD COLUMN predicted_tokens INTEGER;  -- output tokens that a predictor spoke of; NULL: none did
ALTER TABLE request ADD COLUMN weight           INTEGER;  -- its tenant's share in thousandths; NULL: 1000
ALTER TABLE request ADD COLUMN max_tokens       INTEGER;  -- output tokens that it could come to at most
ALTER TABLE request ADD COLUMN ignore_eos       INTEGER;  -- 1: stop tokens were banned, 0: obeyed
ALTER TABLE request ADD COLUMN sampling         TEXT CHECK (sampling IS NULL OR json_valid(sampling)); -- its own wishes; NULL: the sampler's options
