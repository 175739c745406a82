package main

import (
	jwt "github.com/hashicorp/vault-plugin-auth-jwt"
	kubernetes "github.com/hashicorp/vault-plugin-auth-kubernetes"
	kv "github.com/hashicorp/vault-plugin-secrets-kv"
	"github.com/hashicorp/vault/builtin/credential/approle"
	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"
)

var logicalBackends = map[string]logical.Factory{"kv": kv.Factory}

var credentialBackends = map[string]logical.Factory{
	"approle":    approle.Factory,
	"jwt":        jwt.Factory,
	"kubernetes": kubernetes.Factory,
}

// registry is the plug-in catalogue's view of the two maps above. Without one, mounting panics.
type registry struct{}

func factories(kind consts.PluginType) map[string]logical.Factory {
	switch kind {
	case consts.PluginTypeCredential:
		return credentialBackends
	case consts.PluginTypeSecrets:
		return logicalBackends
	default:
		return nil
	}
}

func (registry) Contains(name string, kind consts.PluginType) bool {
	_, found := factories(kind)[name]
	return found
}

func (registry) Get(name string, kind consts.PluginType) (func() (interface{}, error), bool) {
	factory, found := factories(kind)[name]
	return func() (interface{}, error) { return factory, nil }, found
}

func (registry) Keys(kind consts.PluginType) []string {
	names := []string{}
	for name := range factories(kind) {
		names = append(names, name)
	}
	return names
}

func (registry) DeprecationStatus(name string, kind consts.PluginType) (consts.DeprecationStatus, bool) {
	_, found := factories(kind)[name]
	return consts.Supported, found
}

func (registry) IsBuiltinEntPlugin(string, consts.PluginType) bool { return false }
