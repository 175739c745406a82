//! AWS Secrets Manager.

use secret_persistence_aws::{AwsSecretsManager, Config, SETTINGS};
use secret_persistence_core::settings::SettingMap;

use super::{Backend, JsonForm, open};
use crate::kind::Kind;

pub(super) const BACKEND: Backend = Backend {
    kind: Kind::Aws,
    settings: SETTINGS,
    json: &[
        JsonForm {
            auth_type: Some("ACCESS_KEY"),
            required: &["awsAccessKey", "awsSecretAccessKey", "awsRegion", "tagKey"],
            optional: &["kmsKeyArn"],
        },
        JsonForm {
            auth_type: Some("IAM_ROLE"),
            required: &["roleArn", "awsRegion", "tagKey"],
            optional: &["externalId", "kmsKeyArn"],
        },
    ],
    quotas: Some(AwsSecretsManager::quotas),
    account: Some(account),
    check: |values| Config::from_settings(values).map(drop),
    open: |values, owner| {
        Box::pin(open(
            Config::from_settings(values),
            owner,
            Config::with_owner,
            AwsSecretsManager::connect,
        ))
    },
};

/// AWS counts by account and region: <https://docs.aws.amazon.com/secretsmanager/latest/userguide/reference_limits.html>.
/// A role names its account, and so does an access key in the form that AWS has issued since 2019. What
/// the environment decides, and keys in another form, are one account.
fn account(settings: &SettingMap) -> Option<String> {
    let text = |name| settings.text(name).filter(|text| !text.is_empty());
    let region = text("region")?;
    let role = text("role-arn").and_then(|arn| arn.split(':').nth(4));
    if let Some(account) = role {
        return Some(format!("aws {region} account {account}"));
    }
    if let Some(key) = settings.secret("access-key-id") {
        let account = account_of_key(key.expose())?;
        return Some(format!("aws {region} account {account:012}"));
    }
    let profile = text("profile")?;
    Some(format!("aws {region} profile {profile}"))
}

/// The account of an access key. After four letters for the type come sixteen digits to the base of 32:
/// a bit that is set in keys that name their account, and then its number in forty bits. AWS itself only
/// documents a call that answers the same, `sts:GetAccessKeyInfo`.
/// <https://awsteele.com/blog/2020/09/26/aws-access-key-format.html>,
/// <https://labs.withsecure.com/publications/a-bitwise-analysis-of-aws-access-key-identifiers.html>
fn account_of_key(id: &str) -> Option<u64> {
    const BITS: u32 = 80;
    let digits = match id.split_at_checked(4)? {
        ("AKIA" | "ASIA", digits) if digits.len() == 16 => digits,
        _ => return None,
    };
    let number = digits.bytes().try_fold(0_u128, |number, digit| {
        let digit = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'2'..=b'7' => digit - b'2' + 26,
            _ => return None,
        };
        Some((number << 5) | u128::from(digit))
    })?;
    let names_account = number >> (BITS - 1) == 1;
    let account = u64::try_from((number >> (BITS - 41)) & 0xff_ffff_ffff).ok()?;
    (names_account && account < 1_000_000_000_000).then_some(account)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_surely_one_account_has_one_name() {
        let of = |pairs: &[(&'static str, &str)]| {
            account(&SETTINGS.from_pairs(pairs.iter().copied()).unwrap())
        };
        const REGION: (&str, &str) = ("region", "eu-west-1");
        let role = |arn| of(&[REGION, ("role-arn", arn)]).unwrap();
        assert_eq!(
            role("arn:aws:iam::123456789012:role/x"),
            "aws eu-west-1 account 123456789012"
        );
        assert_eq!(
            role("arn:aws:iam::123456789012:role/x"),
            role("arn:aws:iam::123456789012:role/path/y")
        );
        let key = |key, region| of(&[("region", region), ("access-key-id", key)]);
        // Two keys of one account, the published one and another, and its roles.
        let one = key("ASIAY34FZKBOKMUTVV7A", "eu-west-1");
        assert_eq!(one.as_deref(), Some("aws eu-west-1 account 609629065308"));
        assert_eq!(one, key("AKIAY34FZKBOP7777777", "eu-west-1"));
        assert_eq!(one, Some(role("arn:aws:iam::609629065308:role/x")));
        assert_ne!(one, key("AKIASP2TPHJSQH3FJXYZ", "eu-west-1"));
        assert_ne!(one, key("ASIAY34FZKBOKMUTVV7A", "eu-west-3"));
        let profile = of(&[REGION, ("profile", "p")]);
        assert_eq!(profile.as_deref(), Some("aws eu-west-1 profile p"));
        // The name of the store.
        assert_eq!(of(&[REGION]), None);
        assert_eq!(key("AKIAIOSFODNN7EXAMPLE", "eu-west-1"), None);
    }

    #[test]
    fn a_key_names_its_account_or_none() {
        // Published, with what `sts:GetAccessKeyInfo` has answered for the first.
        for (key, account) in [
            ("ASIAY34FZKBOKMUTVV7A", 609_629_065_308),
            ("AKIASP2TPHJSQH3FJXYZ", 171_436_882_533),
            ("ASIAVJ2E6QGR2WZILJFM", 364_679_954_851),
            // Not of twelve digits without the zero.
            ("ASIAQNZGKIQY56JQ7WML", 29_608_264_753),
        ] {
            assert_eq!(account_of_key(key), Some(account), "{key}");
        }
        for key in [
            "",
            "AKI\u{e9}",
            // Before 2019.
            "AKIAIOSFODNN7EXAMPLE",
            // Of a user, not of a key.
            "AIDAY34FZKBOKMUTVV7A",
            "ASIAY34FZKBOKMUTVV7",
            "ASIAY34FZKBOKMUTVV7AA",
            "ASIAY34FZKBOKMUTVV71",
            "asiay34fzkbokmutvv7a",
            // No account has so many digits.
            "AKIA7777777777777777",
        ] {
            assert_eq!(account_of_key(key), None, "{key}");
        }
    }
}
