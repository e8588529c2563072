"""The rules of jax.scipy.special."""

from jax.scipy import special as s

from public_rules._asked import Asked, a, slope

_ARM = "autodiff differentiates the constant that a select puts there, the rule "
_ARM += "the function on both sides of it"
_OTHER_ARM = "autodiff meets 0/0 in an arm that is not taken, the rule does not"

_SCALARS = (
    "a defect of jax 0.12: the rule selects between x and a scalar threshold, so that "
    "erfcx has no second derivative at any x that is not a scalar"
)
_CACHED = (
    "its second argument is the function's value at the first: all is given to the "
    "first, as JAX's comment says; each alone is no derivative, their sum is"
)

_erfcinv = getattr(s, "erfcinv", s.erfc)  # which jax 0.10.2 does not have
# fmt: off
SPECIAL = (
    Asked("erfcx", s.erfcx, (a(-2, 0.5, 3, 20),)),
    Asked("erfcx, far", s.erfcx, (a(60, 200),)),
    Asked("erfcx'", slope(s.erfcx), (a(0.5, 3),), {"_erfcx_grad": ("broken-contract", _SCALARS)}, since="0.12"),
    Asked("wofz", lambda x, y: s.wofz(x + 1j * y), (a(0.3, 2), a(1, 0.4))),
    Asked("dawsn", s.dawsn, (a(-2, 0.5, 3, 20),)),
    Asked("dawsn at 0", s.dawsn, (a(0),), {"_dawsn": ("autodiff-wrong", _OTHER_ARM)}),
    Asked("logit", s.logit, (a(0.1, 0.5, 0.99),)),
    Asked("logit, near its ends", s.logit, (a(1e-6, 1 - 1e-6),)),
    Asked("xlogy", s.xlogy, (a(0.1, 2), a(0.5, 3))),
    Asked("xlogy at 0", s.xlogy, (a(0, 1), a(2, 1)), {"xlogy": ("autodiff-wrong", _ARM)}),
    Asked("xlog1py", s.xlog1py, (a(0.1, 2), a(0.5, 3))),
    Asked("xlog1py at 0", s.xlog1py, (a(0, 1), a(2, 1)), {"xlog1py": ("autodiff-wrong", _ARM)}),
    Asked("entr", s.entr, (a(0.1, 2),)),
    Asked("entr at 0", s.entr, (a(0, 1),)),
    Asked("rel_entr", s.rel_entr, (a(0.1, 2), a(0.5, 1))),
    Asked("rel_entr at 0", s.rel_entr, (a(0, 0, 1), a(0.5, 0, 1))),
    Asked("zeta", s.zeta, (a(2.5, 4), a(1.5, 3))),
    Asked("log_ndtr", s.log_ndtr, (a(-1, 0.5, 2),)),
    Asked("log_ndtr, tails", s.log_ndtr, (a(-40, -5, 5, 30),)),
    Asked("ndtri", s.ndtri, (a(0.1, 0.5, 0.9),), since="0.12"),
    Asked("ndtri'", slope(s.ndtri), (a(0.1, 0.5, 0.9),), {"_ndtri_grad": ("broken-contract", _CACHED)}, since="0.12"),
    Asked("erfcinv", _erfcinv, (a(0.1, 0.8, 1.9),), since="0.12"),
    Asked("erfcinv'", slope(_erfcinv), (a(0.1, 0.8, 1.9),), {"_erfcinv_grad": ("broken-contract", _CACHED)}, since="0.12"),
    Asked("expi", s.expi, (a(-2, 0.5, 3),)),
    Asked("sici", s.sici, (a(0.5, 3, 20),)),
    Asked("sici at 0", s.sici, (a(0),), {"sici": ("unproven", "Ci(0) is -inf: there is no derivative to be right about")}),
    Asked("expn", lambda x: s.expn(2, x), (a(0.5, 3, 20),)),
    Asked("poch", s.poch, (a(1.5, 2), a(2, 0.5))),
    Asked("poch at 0", s.poch, (a(1.5, 3), a(0, 1)), {"poch": ("autodiff-wrong", _ARM)}),
    Asked("hyp1f1", s.hyp1f1, (a(1.5, 2), a(2, 0.5), a(0.3, -1))),
    Asked("hyp2f1", s.hyp2f1, (a(1.5, 2), a(2, 0.5), a(1.3, 3), a(0.3, -0.5))),
    Asked("owens_t", s.owens_t, (a(0.5, 1), a(0.3, 2))),
    Asked("owens_t at 0", s.owens_t, (a(0, 1), a(0.3, 0)), {"_owens_t_impl": ("autodiff-wrong", _OTHER_ARM)}),
    Asked("fresnel", s.fresnel, (a(0.5, -1, 2.9),)),
    Asked("fresnel at 3", s.fresnel, (a(3),), {"fresnel": ("autodiff-wrong", _ARM)}),
    Asked("fresnel at 0", s.fresnel, (a(0),), {"fresnel": ("autodiff-wrong", _OTHER_ARM)}),
)
# fmt: on
