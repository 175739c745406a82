// What Vault's own Go client sees of a key/value engine: one JSON line per step.
//
//	story MOUNT NAME OTHER MISSING      VAULT_ADDR and VAULT_TOKEN say where
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/hashicorp/vault/api"
)

func main() {
	mount, name, other, missing := os.Args[1], os.Args[2], os.Args[3], os.Args[4]
	ctx := context.Background()
	config := api.DefaultConfig()
	config.MaxRetries = 0
	client, err := api.NewClient(config)
	if err != nil {
		panic(err)
	}
	kv := client.KVv2(mount)

	step := func(title string, run func() (any, error)) {
		seen, err := run()
		var response *api.ResponseError
		switch {
		case errors.Is(err, api.ErrSecretNotFound):
			seen = "not found"
		case errors.As(err, &response):
			seen = fmt.Sprint("status ", response.StatusCode)
		case err != nil:
			// The client's own words would quote names.
			seen = fmt.Sprintf("%T", err)
		}
		line, err := json.Marshal(map[string]any{"step": title, "seen": seen})
		if err != nil {
			panic(err)
		}
		fmt.Println(string(line))
	}
	read := func(name string) func() (any, error) {
		return func() (any, error) {
			secret, err := kv.Get(ctx, name)
			if err != nil {
				return nil, err
			}
			return []any{secret.Data["value"], secret.VersionMetadata.Version}, nil
		}
	}
	write := func(name, value string, options ...api.KVOption) func() (any, error) {
		return func() (any, error) {
			secret, err := kv.Put(ctx, name, map[string]any{"value": value}, options...)
			if err != nil {
				return nil, err
			}
			return secret.VersionMetadata.Version, nil
		}
	}
	list := func() (any, error) {
		secret, err := client.Logical().ListWithContext(ctx, mount+"/metadata")
		if secret == nil || err != nil {
			return nil, err
		}
		return secret.Data["keys"], nil
	}

	step("health", func() (any, error) {
		health, err := client.Sys().HealthWithContext(ctx)
		return []bool{health.Initialized, health.Sealed}, err
	})
	step("initialized", func() (any, error) { return client.Sys().InitStatusWithContext(ctx) })
	step("seal status", func() (any, error) {
		status, err := client.Sys().SealStatusWithContext(ctx)
		return status.Sealed, err
	})
	step("lookup", func() (any, error) {
		secret, err := client.Auth().Token().LookupSelfWithContext(ctx)
		return secret != nil && secret.Data["ttl"] != nil, err
	})
	step("renew", func() (any, error) {
		secret, err := client.Auth().Token().RenewSelfWithContext(ctx, 60)
		return secret != nil && secret.Auth != nil, err
	})
	step("read missing", read(missing))
	step("list nothing", list)
	step("write", write(name, "hunter2 ü\n"))
	step("read", read(name))
	step("cas 0 of what is there", write(name, "hunter2 ü\n", api.WithCheckAndSet(0)))
	step("cas 0 of what is not", write(other, "x", api.WithCheckAndSet(0)))
	step("write another value", write(other, "y"))
	step("list", list)
	step("metadata", func() (any, error) {
		metadata, err := kv.GetMetadata(ctx, name)
		if err != nil {
			return nil, err
		}
		return metadata.CurrentVersion, nil
	})
	step("read version 1", func() (any, error) {
		secret, err := kv.GetVersion(ctx, name, 1)
		if err != nil {
			return nil, err
		}
		return secret.Data["value"], nil
	})
	step("versions", func() (any, error) {
		versions, err := kv.GetVersionsAsList(ctx, name)
		return len(versions), err
	})
	step("delete", func() (any, error) { return nil, kv.DeleteVersions(ctx, name, []int{1}) })
	step("read deleted", read(name))
	step("delete all", func() (any, error) { return nil, kv.DeleteMetadata(ctx, name) })
	step("delete the other", func() (any, error) { return nil, kv.DeleteMetadata(ctx, other) })
	step("list nothing again", list)
	client.SetToken("hvs.nobody")
	step("as nobody", read(name))
}
