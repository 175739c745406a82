//! Extracts codes from Azure's responses. Nothing else of bodies and headers is used.

use azure_core::http::RawResponse;
use secret_persistence_remote::identifier;
use serde::Deserialize;

/// The codes in the body of Key Vault's errors, the most specific one first.
pub(super) fn vault_codes(response: &RawResponse) -> Vec<String> {
    #[derive(Deserialize)]
    struct Body {
        error: Option<Detail>,
    }
    #[derive(Deserialize)]
    struct Detail {
        code: Option<String>,
        message: Option<String>,
        innererror: Option<Box<Detail>>,
    }
    let body: &[u8] = response.body().as_ref();
    let Ok(Body {
        error: Some(detail),
    }) = serde_json::from_slice(body)
    else {
        return Vec::new();
    };
    let mut codes = Vec::new();
    let mut current = Some(&detail);
    while let Some(detail) = current {
        let own = detail.code.as_deref().and_then(identifier);
        codes.extend(own);
        codes.extend(detail.message.as_deref().and_then(message_code));
        current = detail.innererror.as_deref();
    }
    codes.reverse();
    codes
}

/// `AKV10032` of `AKV10032: Invalid issuer. …`, or `TokenExpired` of `[TokenExpired] Error …`: Key
/// Vault's code for a refused token, which has no separate field.
fn message_code(message: &str) -> Option<String> {
    if let Some(rest) = message.strip_prefix('[') {
        let (code, _) = rest.split_once(']')?;
        return code
            .bytes()
            .all(|byte| byte.is_ascii_alphabetic())
            .then(|| identifier(code))
            .flatten();
    }
    let (code, _) = message.split_once(':')?;
    let digits = code.strip_prefix("AKV")?;
    ((4..=6).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit()))
        .then(|| code.to_owned())
}

/// The numbers and the code in the body of a refused login.
pub(super) fn login_codes(response: &RawResponse) -> Vec<String> {
    #[derive(Deserialize)]
    struct Body {
        error: Option<String>,
        #[serde(default)]
        error_codes: Vec<u32>,
    }
    let body: &[u8] = response.body().as_ref();
    let Ok(body) = serde_json::from_slice::<Body>(body) else {
        return Vec::new();
    };
    let numbers = body.error_codes.iter().map(|code| format!("AADSTS{code}"));
    numbers
        .chain(body.error.as_deref().and_then(identifier))
        .collect()
}

/// The directory in `Bearer authorization="https://login.microsoftonline.com/<tenant>", …`.
pub(super) fn challenge_tenant(challenge: &str) -> Option<String> {
    let authority = parameter(challenge, "authorization")
        .or_else(|| parameter(challenge, "authorization_uri"))?;
    let (_, place) = authority.split_once("://")?;
    identifier(place.split('/').nth(1)?)
}

/// A parameter of a challenge: `name="value"`.
pub(super) fn parameter<'a>(challenge: &'a str, name: &str) -> Option<&'a str> {
    challenge
        .match_indices(name)
        .filter(|(at, _)| {
            challenge[..*at]
                .chars()
                .next_back()
                .is_none_or(|before| before == ' ' || before == ',')
        })
        .find_map(|(at, _)| {
            let rest = challenge[at + name.len()..].strip_prefix("=\"")?;
            rest.split_once('"').map(|(value, _)| value)
        })
}

#[cfg(test)]
mod tests {
    use azure_core::http::StatusCode;
    use azure_core::http::headers::Headers;

    use super::*;

    fn response(status: u16, body: &str) -> RawResponse {
        RawResponse::from_bytes(StatusCode::from(status), Headers::new(), body.to_owned())
    }

    #[test]
    fn what_is_no_code_is_not_repeated() {
        for code in [
            "my secret value",
            "{\"value\":1}",
            "",
            "a\nb",
            &"x".repeat(81),
        ] {
            let body = serde_json::json!({ "error": { "code": code, "message": code } });
            assert_eq!(vault_codes(&response(400, &body.to_string())), [""; 0]);
        }
        assert_eq!(message_code("AKVcanary: x"), None);
        assert_eq!(message_code("no colon"), None);
        assert_eq!(message_code("[my secret] x"), None);
        assert_eq!(
            message_code("[TokenExpired] Error validating token").as_deref(),
            Some("TokenExpired")
        );
        let challenge = r#"Bearer realm="x", error="invalid_token",error_description="a b""#;
        assert_eq!(parameter(challenge, "error"), Some("invalid_token"));
        assert_eq!(parameter(challenge, "rror"), None);
        assert_eq!(challenge_tenant("Bearer"), None);
        assert_eq!(
            challenge_tenant("Bearer authorization=\"https://x/my secret\""),
            None
        );
    }
}
