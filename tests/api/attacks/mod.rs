//! The attacks on linking, each refused: a test, or where one lies elsewhere, its name.
//!
//! | attack | refused by |
//! |---|---|
//! | `state` missing, forged, replayed, expired, from another browser or invitation | [`crate::hub`] `a_state_is_good_once_in_its_browser_and_for_its_invitation`; the store's contract `a_sign_in_comes_back_once`; [`sign_in`] `a_state_that_comes_back_many_times_at_once_is_taken_once`, `a_sign_in_for_what_is_gone_redeems_nothing` |
//! | `state` of another project; of the hub brought to the API, and the reverse | [`sign_in`] `a_state_is_of_whoever_set_out_with_it` |
//! | `state` on another callback; what is given twice | [`sign_in`] `a_sign_in_comes_back_to_where_its_app_is_registered` |
//! | code injection, both ways; PKCE left out or of another sign-in | [`sign_in`] `a_code_is_worth_nothing_in_another_sign_in`, `every_sign_in_has_a_challenge_of_its_own` |
//! | mix-up, `iss`, token host | [`sign_in`] `a_code_goes_to_the_server_of_its_sign_in_alone`, `what_another_server_sends_back_is_not_redeemed` |
//! | one redirect URL | [`sign_in`] `every_sign_in_has_a_challenge_of_its_own`; [`crate::hub`] `an_app_that_is_set_up_wrongly_is_told_by_what_is_wrong` |
//! | redirects, bombs and lies of the token endpoint | [`tokens`] |
//! | tokens of another organization | [`tokens`] `a_token_of_another_organization_takes_nobody_s_place` |
//! | open redirect after linking; `postMessage` to a stranger | [`pages`] `a_customer_returns_to_what_is_registered_letter_for_letter`; hub's own `only_a_registered_opener_is_told`; `tests/hub` in a browser |
//! | link token replayed, opened twice at once | [`crate::hub`] `an_invitation_that_two_open_at_once_makes_one_link`; [`pages`] `a_link_token_is_used_up_by_a_link_alone` |
//! | link token leaked | [`crate::hub`] `every_answer_says_what_it_may_do_and_nobody_keeps_it`; [`crate::secrets`] |
//! | SSRF | [`outward`]; [`crate::accounts`] `a_base_url_is_one_that_the_operator_allows`; `outbound::address`, and of proxies [`crate::secrets`] |
//! | header injection | [`outward`] `an_assumed_user_is_one_header_field` |
//! | bombs from callers | [`crate::hostile`] `a_body_that_cannot_be_meant_is_refused_on_every_route_that_reads_one` |
//! | framing, scripts, markup in names | [`crate::hub`] `every_answer_says_what_it_may_do_and_nobody_keeps_it`; [`pages`] `what_others_call_something_is_only_ever_text`; hub's own `a_name_is_only_ever_text` |
//! | forged forms; cookie flags | [`crate::hub`] `a_form_of_somebody_else_s_is_not_taken`, `behind_tls_the_cookie_is_for_tls_alone` |
//! | timing on keys | `crypto::api_key`: digests alone are compared, in constant time; [`crate::errors`] `no_key_a_wrong_one_a_revoked_one_and_a_malformed_one_get_the_same_401` |
//! | secrets in logs | [`crate::secrets`] |
//! | other projects' ids in bodies | [`projects`], and in paths [`crate::isolation`] |

mod outward;
mod pages;
mod projects;
pub mod server;
pub mod sign_in;
mod tokens;
