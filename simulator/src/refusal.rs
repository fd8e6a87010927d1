//! Refusals: every error code once, with its HTTP status.

use std::borrow::Cow;

use serde_json::Value;

/// An error code as Smartsheet documents it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code {
    pub status: u16,
    pub number: u32,
    pub message: &'static str,
}

impl Code {
    /// A refusal with the code's standard message.
    pub fn refuse(self) -> Refusal {
        Refusal {
            code: self,
            message: Cow::Borrowed(self.message),
            detail: None,
        }
    }

    /// A refusal with a message about this request.
    pub fn because(self, message: impl Into<Cow<'static, str>>) -> Refusal {
        Refusal {
            code: self,
            message: message.into(),
            detail: None,
        }
    }
}

/// A refused request.
#[derive(Clone, Debug)]
pub struct Refusal {
    pub code: Code,
    pub message: Cow<'static, str>,
    pub detail: Option<Value>,
}

impl From<Code> for Refusal {
    fn from(code: Code) -> Self {
        code.refuse()
    }
}

const fn code(status: u16, number: u32, message: &'static str) -> Code {
    Code {
        status,
        number,
        message,
    }
}

pub const TOKEN_REQUIRED: Code = code(401, 1001, "An Access Token is required.");
pub const TOKEN_INVALID: Code = code(401, 1002, "Your Access Token is invalid.");
pub const TOKEN_EXPIRED: Code = code(401, 1003, "Your Access Token has expired.");
pub const NOT_AUTHORIZED: Code = code(403, 1004, "You are not authorized to perform this action.");
/// Code 1004 for a missing scope, whose status a switch changes.
pub const SCOPE_MISSING: Code = code(
    403,
    1004,
    "You are not authorized to perform this action: a scope is missing.",
);
pub const NOT_FOUND: Code = code(404, 1006, "Not Found");
pub const VERSION_UNSUPPORTED: Code = code(404, 1007, "Version not supported.");
pub const METHOD_NOT_ALLOWED: Code = code(405, 1010, "HTTP Method not supported.");
pub const HEADER_INVALID: Code = code(400, 1011, "A required header was missing or invalid.");
pub const ATTRIBUTE_MISSING: Code = code(
    400,
    1012,
    "A required object attribute is missing from your request.",
);
pub const NOT_IN_PLAN: Code = code(
    403,
    1013,
    "The operation you are attempting to perform is not supported by your plan.",
);
pub const ALREADY_YOURS: Code = code(403, 1016, "The user is already a member of your account.");
pub const PARAMETER_VALUE: Code = code(400, 1018, "The value was not valid for the parameter.");
pub const TRANSFER_TARGET_NOT_FOUND: Code = code(
    400,
    1019,
    "Cannot transfer to the user specified. User not found.",
);
pub const USER_NOT_FOUND: Code = code(404, 1020, "User not found.");
pub const TRANSFER_TARGET_ELSEWHERE: Code = code(
    403,
    1021,
    "Cannot transfer to the user specified. They are not a member of your account.",
);
pub const USER_ELSEWHERE: Code = code(
    403,
    1022,
    "Cannot delete the user specified. They are not a member of your account.",
);
pub const BODY_REQUIRED: Code = code(400, 1024, "A request body is required.");
pub const CANNOT_ASSUME: Code = code(401, 1030, "You cannot assume the user specified.");
pub const ATTRIBUTE_VALUE: Code = code(
    400,
    1031,
    "The value specified for an attribute was not valid.",
);
pub const ATTRIBUTE_NOT_ALLOWED: Code = code(
    400,
    1032,
    "The attribute is not allowed for this operation.",
);
pub const CANNOT_REMOVE_YOURSELF: Code =
    code(403, 1047, "You cannot remove yourself from the account.");
pub const USER_DECLINED: Code = code(
    403,
    1048,
    "You cannot edit the user specified. They have declined the invitation to join your account.",
);
pub const CANNOT_DROP_OWN_ADMIN: Code = code(
    403,
    1049,
    "You cannot remove admin permissions from yourself.",
);
pub const ACCEPT_UNSUPPORTED: Code = code(
    406,
    1052,
    "The value in the Accept header is not supported.",
);
pub const RESOURCE_VIEWER_NEEDS_LICENSE: Code =
    code(403, 1097, "Only licensed users may be resource viewers.");
pub const GROUP_ADMIN_NEEDS_LICENSE: Code =
    code(403, 1102, "Only licensed users may be group admins.");
pub const GROUP_NAME_TAKEN: Code = code(
    400,
    1103,
    "Group name must be unique: the name is already in use.",
);
pub const NOT_GROUP_ADMIN: Code = code(
    403,
    1104,
    "Group admin rights are required to perform this action.",
);
pub const GROUP_NOT_FOUND: Code = code(404, 1106, "Group not found.");
pub const TRANSFER_TARGET_NOT_GROUP_ADMIN: Code = code(
    400,
    1107,
    "The user that groups are transferred to must be a group admin.",
);
pub const TRANSFER_TARGET_MISSING: Code = code(
    400,
    1108,
    "The user owns groups: transferTo must be specified.",
);
pub const ALREADY_EXISTS: Code = code(400, 1129, "The resource already exists.");
pub const CONTENT_TYPE_UNSUPPORTED: Code = code(
    415,
    1124,
    "The value in the Content-Type header is not supported.",
);
pub const OWNER_MUST_BE_ADMIN: Code =
    code(400, 1144, "The owner of a group must be a group admin.");
pub const ALTERNATE_EMAIL_IN_USE: Code = code(400, 1157, "The email address is already in use.");
pub const ALTERNATE_EMAIL_USED: Code = code(
    400,
    1158,
    "The email address is an alternate address: use the primary one.",
);
pub const EMAIL_DOMAIN_NOT_VALIDATED: Code = code(
    403,
    1187,
    "The domain of the email address is not validated.",
);
pub const OUT_OF_RANGE: Code = code(400, 1229, "The value of a parameter is out of range.");
pub const JSON_INVALID: Code = code(400, 1282, "The request body is not valid JSON.");
pub const PROPERTY_UNKNOWN: Code = code(400, 1283, "The request body has an unknown property.");
pub const MEMBER_CANNOT_BE_ADDED: Code =
    code(400, 1290, "The member cannot be added to the group.");
pub const DEACTIVATE_ELSEWHERE: Code = code(
    403,
    1335,
    "Cannot deactivate the user specified. They are not a member of your account.",
);
pub const DEACTIVATE_YOURSELF: Code = code(403, 1336, "You cannot deactivate yourself.");
pub const REACTIVATE_ELSEWHERE: Code = code(
    403,
    1354,
    "Cannot reactivate the user specified. They are not a member of your account.",
);
pub const REACTIVATE_YOURSELF: Code = code(403, 1355, "You cannot reactivate yourself.");
pub const CONSUMER_DOMAIN: Code = code(
    403,
    1359,
    "Users of a common ISP domain cannot be deactivated.",
);
pub const EMAIL_NOT_CONFIRMED: Code = code(403, 1360, "The email address must be confirmed first.");

pub const CLIENT_UNKNOWN: Code = code(401, 1067, "Invalid client: the client_id is unknown.");
pub const GRANT_TYPE_UNSUPPORTED: Code = code(
    400,
    1068,
    "Unsupported grant type: grant_type must be authorization_code or refresh_token.",
);
pub const CODE_EXPIRED: Code = code(
    400,
    1069,
    "Invalid grant: the authorization code has expired.",
);
pub const TOKEN_PARAMETER_MISSING: Code = code(
    400,
    1070,
    "Invalid request: a required parameter is missing.",
);
pub const GRANT_INVALID: Code = code(
    400,
    1071,
    "Invalid grant: the authorization code or refresh token is invalid or was used.",
);
pub const HASH_MISMATCH: Code = code(400, 1072, "Invalid grant: the hash does not match.");
pub const REDIRECT_MISMATCH: Code = code(
    400,
    1073,
    "The redirect_uri does not match the registered one.",
);
pub const TOKEN_REVOKED: Code = code(400, 1132, "Invalid grant: the token has been revoked.");
pub const CLIENT_PROOF_MISSING: Code =
    code(400, 1236, "One of hash and client_secret is required.");
pub const CLIENT_PROOF_TWICE: Code =
    code(400, 1237, "Only one of hash and client_secret is allowed.");
pub const CLIENT_SECRET_WRONG: Code =
    code(400, 1238, "Invalid client: the client_secret is wrong.");
pub const GRANT_TYPE_INCONSISTENT: Code = code(
    400,
    1292,
    "The grant_type does not agree with the other parameters.",
);

pub const UNEXPECTED: Code = code(
    500,
    4000,
    "An unexpected error has occurred. Please contact Support.",
);
pub const MAINTENANCE: Code = code(
    503,
    4001,
    "Smartsheet is currently offline for maintenance. Please check back shortly.",
);
pub const TIMEOUT: Code = code(500, 4002, "Server timeout exceeded. Request has failed.");
pub const RATE_LIMITED: Code = code(429, 4003, "Rate limit exceeded.");
pub const UNEXPECTED_RETRY: Code = code(
    500,
    4004,
    "An unexpected error has occurred. Please retry your request.",
);
pub const VERSION_RETIRED: Code = code(410, 4005, "Version retired.");

/// Codes that a fault may name by number; their messages are found here.
const INJECTED: &[Code] = &[
    TOKEN_REQUIRED,
    TOKEN_INVALID,
    TOKEN_EXPIRED,
    NOT_AUTHORIZED,
    NOT_FOUND,
    USER_NOT_FOUND,
    GROUP_NOT_FOUND,
    NOT_IN_PLAN,
    GRANT_INVALID,
    TOKEN_REVOKED,
    CLIENT_UNKNOWN,
    CLIENT_SECRET_WRONG,
    UNEXPECTED,
    MAINTENANCE,
    TIMEOUT,
    RATE_LIMITED,
    UNEXPECTED_RETRY,
    VERSION_RETIRED,
];

/// The message of a code.
pub fn message_of(number: u32) -> &'static str {
    INJECTED
        .iter()
        .find(|code| code.number == number)
        .map_or("An injected fault.", |code| code.message)
}

/// The OAuth `error` for a code of the token endpoint.
pub fn oauth_type(number: u32) -> &'static str {
    match number {
        1067 | 1238 => "invalid_client",
        1068 => "unsupported_grant_type",
        1069 | 1071 | 1072 | 1132 => "invalid_grant",
        _ => "invalid_request",
    }
}
