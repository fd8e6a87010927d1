//! Renders every page of the hub in each of its states.

use actix_web::body::MessageBody;
use url::Url;

use crate::{
    config::Config,
    directory::Visibility,
    error::WalkProgress,
    http::hub::{
        done::{DirectoryCounts, Done},
        error_page::{AppOwner, Problem, ProblemPage},
        field_access::FieldAccess,
        own_app::{OwnApp, OwnAppFault},
        page::{HubPage, answer},
        progress::{FirstWalk, ProgressPage},
        region::RegionChoice,
        review::{Method, ReviewPage},
        start::{Again, Methods, Notice, ProfileMethod, Start},
        theme::Theme,
        token::{Token, TokenFault},
    },
    model::{
        observed::{Identity, Seats},
        schema::Reason,
    },
};

/// A rendered page.
pub struct ShownPage {
    /// The page and its state. Valid as a file name.
    pub name: String,
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub html: String,
}

impl ShownPage {
    pub fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(each, _)| each == name);
        found.map_or("", |(_, value)| value)
    }
}

/// Names that the operator, the customer and the provider choose.
pub struct Names {
    pub brand: &'static str,
    pub customer: &'static str,
    pub organization: &'static str,
    pub person: &'static str,
    pub email: &'static str,
    pub label: &'static str,
    pub client_id: &'static str,
}

pub const ORDINARY: Names = Names {
    brand: "Northwind People",
    customer: "Example Ltd",
    organization: "Example Ltd",
    person: "Ana Ruiz",
    email: "ana.ruiz@example.org",
    label: "Second app",
    client_id: "1hq3kd9s0example7b2",
};

const LOGO: &str = "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 220 48\" width=\"220\" \
    height=\"48\"><circle cx=\"24\" cy=\"24\" r=\"18\" fill=\"#7a1f5c\"/><path d=\"M60 14h140v6H60zm0 \
    14h100v6H60z\" fill=\"#222222\"/></svg>";

/// Two themes: one with a name only, and one with its own logo and colors.
pub fn looks(names: &Names) -> [Theme; 2] {
    let name = format!("{:?}", names.brand);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), LOGO).unwrap();
    let logo = format!("{:?}", file.path().to_str().unwrap());
    let plain = [("hub.name", name.as_str())];
    let own = [
        ("hub.name", name.as_str()),
        ("hub.logo_file", logo.as_str()),
        ("hub.accent", "\"#7a1f5c\""),
        ("hub.accent_dark", "\"#e39ac9\""),
    ];
    [&plain[..], &own[..]].map(|settings| {
        let config = Config::with(settings).unwrap();
        Theme::new(&config.hub.brand().unwrap())
    })
}

fn places() -> Vec<RegionChoice> {
    let url = |text: &str| Url::parse(text).unwrap();
    let region = |value, name, end: &str| {
        let api = url(&format!("https://api.smartsheet{end}/2.0"));
        let sign_in = url(&format!("https://app.smartsheet{end}/b/authorize"));
        RegionChoice::new(value, name, &api, Some(&sign_in))
    };
    let simulator = url("http://127.0.0.1:4010/2.0");
    vec![
        region("us", "United States", ".com"),
        region("eu", "Europe", ".eu"),
        region("au", "Australia", ".au"),
        region("gov", "US Government", "gov.com"),
        RegionChoice::new(
            simulator.as_str(),
            "Smartsheet simulator",
            &simulator,
            Some(&simulator),
        ),
    ]
}

/// The data that the pages are rendered from, and the rendered pages.
struct GalleryData<'a> {
    theme: &'a Theme,
    names: &'a Names,
    places: Vec<RegionChoice>,
    shown: Vec<ShownPage>,
}

/// Every page, in a customer's order.
pub fn gallery(theme: &Theme, names: &Names) -> Vec<ShownPage> {
    let mut world = GalleryData {
        theme,
        names,
        places: places(),
        shown: Vec::new(),
    };
    world.starts();
    world.tokens();
    world.own_apps();
    world.reviews();
    world.walks();
    world.ends();
    world.problems();
    world.shown
}

const FORM_TOKEN: &str = "7f0c9f1e-form-token";

impl GalleryData<'_> {
    fn show(shown: &mut Vec<ShownPage>, name: &str, page: &impl HubPage) {
        let response = answer(page).unwrap();
        let headers = response.headers().iter();
        let headers = headers.map(|(name, value)| {
            let value = value.to_str().unwrap().to_owned();
            (name.as_str().to_owned(), value)
        });
        shown.push(ShownPage {
            name: name.to_owned(),
            status: response.status().as_u16(),
            headers: headers.collect(),
            html: match response.into_body().try_into_bytes() {
                Ok(bytes) => String::from_utf8(bytes.to_vec()).unwrap(),
                Err(_) => panic!("{name}: a page is sent whole"),
            },
        });
    }

    fn starts(&mut self) {
        let Self {
            theme,
            names,
            places,
            shown,
        } = self;
        let sign_in = |profile, place| ProfileMethod {
            profile,
            label: names.label,
            place,
        };
        let all = |sign_in| Methods {
            sign_in,
            own_app: true,
            access_token: true,
        };
        let start = |methods| Start {
            theme,
            form_token: FORM_TOKEN,
            customer: names.customer,
            again: None,
            notice: None,
            methods,
            seconds_left: 1_680,
        };
        let one = start(all(vec![sign_in("p1", &places[1])]));
        Self::show(shown, "start", &one);
        let several = start(all(vec![
            sign_in("p1", &places[0]),
            sign_in("p2", &places[1]),
            ProfileMethod {
                label: "First app",
                ..sign_in("p3", &places[1])
            },
        ]));
        Self::show(shown, "start-several", &several);
        let again = Start {
            again: Some(Again {
                organization: Some(names.organization),
            }),
            notice: Some(Notice::Canceled),
            ..start(Methods {
                sign_in: vec![sign_in("p1", &places[1])],
                own_app: false,
                access_token: false,
            })
        };
        Self::show(shown, "start-again", &again);
        let token_only = start(Methods {
            sign_in: Vec::new(),
            own_app: false,
            access_token: true,
        });
        Self::show(shown, "start-token-only", &token_only);
    }

    fn tokens(&mut self) {
        let Self {
            theme,
            places,
            shown,
            ..
        } = self;
        let token = |fault| Token {
            theme,
            form_token: FORM_TOKEN,
            places,
            chosen: None,
            fault,
            has_other_ways: true,
        };
        let unknown = Some(TokenFault::UnknownAt(&places[1]));
        Self::show(shown, "token", &token(None));
        Self::show(shown, "token-unknown-there", &token(unknown));
        Self::show(shown, "token-no-region", &token(Some(TokenFault::NoRegion)));
        let chosen = |fault| Token {
            chosen: Some("eu"),
            ..token(Some(fault))
        };
        Self::show(shown, "token-missing", &chosen(TokenFault::NoToken));
        Self::show(shown, "token-malformed", &chosen(TokenFault::NotAToken));
        let one_place = Token {
            places: &places[1..2],
            has_other_ways: false,
            ..token(unknown)
        };
        Self::show(shown, "token-one-region", &one_place);
    }

    fn own_apps(&mut self) {
        let Self {
            theme,
            names,
            places,
            shown,
        } = self;
        let own_app = |fault| OwnApp {
            theme,
            form_token: FORM_TOKEN,
            places,
            chosen: None,
            client_id: "",
            hub_url: "https://link.example.com/",
            redirect_url: "https://link.example.com/connect/oauth2/smartsheet/callback",
            fault,
            has_other_ways: true,
        };
        Self::show(shown, "app", &own_app(None));
        for (name, fault) in [
            ("app-no-region", OwnAppFault::NoRegion),
            ("app-no-id", OwnAppFault::NoClientId),
            ("app-no-secret", OwnAppFault::NoClientSecret),
            ("app-malformed-id", OwnAppFault::NotAClientId),
            ("app-malformed-secret", OwnAppFault::NotAClientSecret),
        ] {
            let page = OwnApp {
                chosen: Some("us").filter(|_| fault != OwnAppFault::NoRegion),
                client_id: match fault {
                    OwnAppFault::NoClientId => "",
                    _ => names.client_id,
                },
                ..own_app(Some(fault))
            };
            Self::show(shown, name, &page);
        }
    }

    fn identity(names: &Names, is_admin: bool) -> Identity {
        Identity {
            user: "3058104730912644".into(),
            email: Some(names.email.to_owned()),
            name: Some(names.person.to_owned()),
            organization: "7731904426510212".into(),
            organization_name: Some(names.organization.to_owned()),
            is_admin,
            seats: if is_admin {
                Seats::Readable {
                    plan: "7731904426510212".into(),
                }
            } else {
                Seats::Hidden(Reason::NotPermitted)
            },
        }
    }

    fn sight(identity: &Identity, sees_groups: bool) -> FieldAccess {
        let visibility = Visibility::of(identity.is_admin, &identity.seats, sees_groups);
        FieldAccess::of(identity.is_admin, &visibility.hidden_fields())
    }

    fn reviews(&mut self) {
        let Self {
            theme,
            names,
            places,
            shown,
        } = self;
        let mut show = |name, method, identity: &Identity, users, sees_groups| {
            let page = ReviewPage {
                theme,
                form_token: FORM_TOKEN,
                draft: 3,
                customer: names.customer,
                method,
                place: &places[1],
                identity,
                users,
                sight: &Self::sight(identity, sees_groups),
            };
            Self::show(shown, name, &page);
        };
        let admin = Self::identity(names, true);
        let member = Self::identity(names, false);
        let nameless = Identity {
            email: None,
            name: None,
            organization_name: None,
            seats: Seats::Hidden(Reason::NotSupported),
            ..admin.clone()
        };
        show("review", Method::AccessToken, &admin, Some(1_137), true);
        show("review-member", Method::SignIn, &member, Some(1), true);
        show("review-nameless", Method::OwnApp, &nameless, None, false);
    }

    fn walks(&mut self) {
        let Self {
            theme,
            names,
            shown,
            ..
        } = self;
        let running = FirstWalk::Running(WalkProgress {
            pages: 12,
            pages_total: Some(32),
            records: 1_150,
            eta_seconds: Some(95),
        });
        let beginning = FirstWalk::Running(WalkProgress {
            pages: 1,
            records: 100,
            ..WalkProgress::default()
        });
        for (name, walk) in [
            ("progress", running),
            ("progress-waiting", FirstWalk::Waiting),
            ("progress-beginning", beginning),
            ("progress-failed", FirstWalk::Failed),
            ("progress-sealed", FirstWalk::Sealed),
        ] {
            let organization = names.organization;
            Self::show(
                shown,
                name,
                &ProgressPage {
                    theme,
                    organization,
                    walk,
                },
            );
        }
    }

    fn ends(&mut self) {
        let Self {
            theme,
            names,
            places,
            shown,
        } = self;
        let back = Url::parse("https://app.example.com/settings/directory?linked=1&x=2").unwrap();
        let whole = Self::sight(&Self::identity(names, true), true);
        let partly = Self::sight(&Self::identity(names, false), true);
        let done = Done {
            theme,
            organization: names.organization,
            person: names.person,
            place: &places[1],
            directory: Some(DirectoryCounts {
                users: 1_137,
                groups: 1,
            }),
            sight: &whole,
            account: "0198c3a2-5b6f-7c11-9d0e-2f4a6b8c0d1e",
            provider: "smartsheet",
            opener_origin: Some("https://app.example.com"),
            return_url: Some(&back),
        };
        Self::show(shown, "done", &done);
        let alone = Done {
            directory: None,
            sight: &partly,
            opener_origin: None,
            return_url: None,
            ..done
        };
        Self::show(shown, "done-alone", &alone);
    }

    fn problems(&mut self) {
        let Self {
            theme,
            names,
            shown,
            ..
        } = self;
        for (name, problem) in problems(names) {
            let reference = "0198c3a2-7d10-7abc-8def-0123456789ab";
            let page = ProblemPage::new(theme, problem, reference);
            Self::show(shown, &format!("problem-{name}"), &page);
        }
    }
}

/// Each problem with a unique name. The `match` has no wildcard, so a new variant does not compile
/// until it has a name.
fn problems<'a>(names: &'a Names) -> Vec<(&'static str, Problem<'a>)> {
    let redirect_url = "https://link.example.com/connect/oauth2/smartsheet/callback";
    let all = [
        Problem::InvitationUnknown,
        Problem::InvitationUsed,
        Problem::ConsentDenied,
        Problem::AuthorizationExpired,
        Problem::OtherBrowser,
        Problem::AppSecretWrong(AppOwner::Own),
        Problem::AppSecretWrong(AppOwner::Profile),
        Problem::RedirectUrlWrong(AppOwner::Own, redirect_url),
        Problem::RedirectUrlWrong(AppOwner::Profile, redirect_url),
        Problem::ClientIdUnknown(AppOwner::Own),
        Problem::ClientIdUnknown(AppOwner::Profile),
        Problem::TokenRefused,
        Problem::RightsMissing,
        Problem::StandsForAnother,
        Problem::ProviderSilent,
        Problem::Unavailable,
        Problem::ProviderThrottled { seconds: 180 },
        Problem::TooManyTries,
        Problem::OrganizationMismatch {
            linked: Some(names.organization),
        },
        Problem::ForeignForm,
        Problem::ProfileDisabled,
        Problem::Internal,
    ];
    let name = |problem: &Problem<'_>| match problem {
        Problem::InvitationUnknown => "invitation-unknown",
        Problem::InvitationUsed => "invitation-used",
        Problem::ConsentDenied => "consent-denied",
        Problem::AuthorizationExpired => "authorization-expired",
        Problem::OtherBrowser => "other-browser",
        Problem::AppSecretWrong(AppOwner::Own) => "app-secret",
        Problem::AppSecretWrong(AppOwner::Profile) => "profile-secret",
        Problem::RedirectUrlWrong(AppOwner::Own, _) => "app-redirect",
        Problem::RedirectUrlWrong(AppOwner::Profile, _) => "profile-redirect",
        Problem::ClientIdUnknown(AppOwner::Own) => "app-unknown",
        Problem::ClientIdUnknown(AppOwner::Profile) => "profile-unknown",
        Problem::TokenRefused => "token-refused",
        Problem::RightsMissing => "rights",
        Problem::StandsForAnother => "stands-for",
        Problem::ProviderSilent => "silent",
        Problem::Unavailable => "unavailable",
        Problem::ProviderThrottled { .. } => "throttled",
        Problem::TooManyTries => "tries",
        Problem::OrganizationMismatch { .. } => "organization",
        Problem::ForeignForm => "foreign-form",
        Problem::ProfileDisabled => "profile-disabled",
        Problem::Internal => "internal",
    };
    all.map(|problem| (name(&problem), problem)).to_vec()
}
