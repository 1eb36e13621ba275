-- SPDX-License-Identifier: MIT
-- Distributions that intervals are made of: normal, Student's t, binomial. In plain Lua, to about
-- twelve digits.
--
--   normal_quantile(p)     Wichura, algorithm AS 241 (Applied Statistics 37, 1988), PPND16
--   student_cdf(t, df)     by the regularized incomplete beta function, Lentz's continued fraction
--                          (Press et al., Numerical Recipes, 6.4)
--   student_quantile(p, df)  the cdf, inverted by bisection
--   binomial_cdf(k, n, p)  P(B ≤ k), likewise by the incomplete beta
local distributions = {}

local A <const> = { 3.3871328727963666080e0, 1.3314166789178437745e2, 1.9715909503065514427e3, 1.3731693765509461125e4,
                    4.5921953931549871457e4, 6.7265770927008700853e4, 3.3430575583588128105e4, 2.5090809287301226727e3 }
local B <const> = { 1, 4.2313330701600911252e1, 6.8718700749205790830e2, 5.3941960214247511077e3,
                    2.1213794301586595867e4, 3.9307895800092710610e4, 2.8729085735721942674e4, 5.2264952788528545610e3 }
local C <const> = { 1.42343711074968357734e0, 4.63033784615654529590e0, 5.76949722146069140550e0, 3.64784832476320460504e0,
                    1.27045825245236838258e0, 2.41780725177450611770e-1, 2.27238449892691845833e-2, 7.74545014278341407640e-4 }
local D <const> = { 1, 2.05319162663775882187e0, 1.67638483018380384940e0, 6.89767334985100004550e-1,
                    1.48103976427480074590e-1, 1.51986665636164571966e-2, 5.47593808499534494600e-4, 1.05075007164441684324e-9 }
local E <const> = { 6.65790464350110377720e0, 5.46378491116411436990e0, 1.78482653991729133580e0, 2.96560571828504891230e-1,
                    2.65321895265761230930e-2, 1.24266094738807843860e-3, 2.71155556874348757815e-5, 2.01033439929228813265e-7 }
local F <const> = { 1, 5.99832206555887937690e-1, 1.36929880922735805310e-1, 1.48753612908506148525e-2,
                    7.86869131145613259100e-4, 1.84631831751005468180e-5, 1.42151175831644588870e-7, 2.04426310338993978564e-15 }

local function polynomial(c, x)
  local sum = 0
  for i = #c, 1, -1 do sum = sum * x + c[i] end
  return sum
end

function distributions.normal_quantile(p)
  local q = p - 0.5
  if math.abs(q) <= 0.425 then
    local r = 0.180625 - q * q
    return q * polynomial(A, r) / polynomial(B, r)
  end
  local r = math.sqrt(-math.log(q < 0 and p or 1 - p))
  local x = r <= 5 and polynomial(C, r - 1.6) / polynomial(D, r - 1.6) or polynomial(E, r - 5) / polynomial(F, r - 5)
  return q < 0 and -x or x
end

-- ln Γ(x), x > 0: Lanczos, g = 7, nine terms.
local LANCZOS <const> = { 0.99999999999980993, 676.5203681218851, -1259.1392167224028, 771.32342877765313, -176.61502916214059,
                          12.507343278686905, -0.13857109526572012, 9.9843695780195716e-6, 1.5056327351493116e-7 }
local function log_gamma(x)
  if x < 0.5 then return math.log(math.pi / math.sin(math.pi * x)) - log_gamma(1 - x) end
  x = x - 1
  local sum = LANCZOS[1]
  for i = 2, #LANCZOS do sum = sum + LANCZOS[i] / (x + i - 1) end
  local t = x + 7.5
  return 0.5 * math.log(2 * math.pi) + (x + 0.5) * math.log(t) - t + math.log(sum)
end

local function fraction(a, b, x)
  local tiny <const> = 1e-300
  local function safe(v) return math.abs(v) < tiny and tiny or v end
  local c, d = 1.0, 1 / safe(1 - (a + b) * x / (a + 1))
  local h = d
  for m = 1, 10000 do
    local even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
    d, c = 1 / safe(1 + even * d), safe(1 + even / c)
    h = h * d * c
    local odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
    d, c = 1 / safe(1 + odd * d), safe(1 + odd / c)
    h = h * d * c
    if math.abs(d * c - 1) < 1e-15 then break end
  end
  return h
end

-- I_x(a, b), the regularized incomplete beta function.
local function incomplete_beta(a, b, x)
  if x <= 0 then return 0.0 end
  if x >= 1 then return 1.0 end
  local front = math.exp(log_gamma(a + b) - log_gamma(a) - log_gamma(b) + a * math.log(x) + b * math.log(1 - x))
  if x < (a + 1) / (a + b + 2) then return front * fraction(a, b, x) / a end
  return 1 - front * fraction(b, a, 1 - x) / b
end

function distributions.student_cdf(t, df)
  local tail = 0.5 * incomplete_beta(df / 2, 0.5, df / (df + t * t))
  return t > 0 and 1 - tail or tail
end

function distributions.student_quantile(p, df)
  if p == 0.5 then return 0.0 end
  if p < 0.5 then return -distributions.student_quantile(1 - p, df) end
  local low, high = 0.0, 1.0
  while distributions.student_cdf(high, df) < p do low, high = high, 2 * high end
  for _ = 1, 100 do
    local middle = 0.5 * (low + high)
    if middle <= low or middle >= high then break end
    if distributions.student_cdf(middle, df) < p then low = middle else high = middle end
  end
  return 0.5 * (low + high)
end

function distributions.binomial_cdf(k, n, p)
  if k < 0 then return 0.0 end
  if k >= n then return 1.0 end
  return incomplete_beta(n - k, k + 1, 1 - p)
end

return distributions
