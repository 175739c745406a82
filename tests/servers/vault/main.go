// Command vaultserver runs HashiCorp Vault itself for the tests: its core and its HTTP API, with all storage in memory,
// initialised and unsealed.
//
// It prints one line of JSON when it is ready (see state) and serves until it is killed. Policies, token lifetimes,
// renewal, sealing and step-down are Vault's own; nothing here imitates them.
package main

import (
	"context"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-uuid"
	"github.com/hashicorp/vault/helper/namespace"
	vaulthttp "github.com/hashicorp/vault/http"
	"github.com/hashicorp/vault/internalshared/configutil"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/hashicorp/vault/sdk/physical"
	"github.com/hashicorp/vault/sdk/physical/inmem"
	"github.com/hashicorp/vault/vault"
)

// rootTokenVariable gives the root token a known value; without it a random one is made.
const rootTokenVariable = "VAULT_ROOT_TOKEN"

// state is what a test needs to know about the running server. Paths are PEM files.
type state struct {
	Address     string `json:"address"`
	TLSAddress  string `json:"tls_address"`
	MTLSAddress string `json:"mtls_address"`
	// The addresses of the second node are left out unless -standby was given.
	StandbyAddress    string `json:"standby_address,omitempty"`
	StandbyTLSAddress string `json:"standby_tls_address,omitempty"`
	CAFile            string `json:"ca_file"`
	ClientCertFile    string `json:"client_cert_file"`
	ClientKeyFile     string `json:"client_key_file"`
	UnsealKey         string `json:"unseal_key"`
	RootToken         string `json:"root_token"`
}

type options struct {
	listen, tlsListen, folder, logLevel string
	standby, redirectToTLS              bool
}

func main() {
	options := options{}
	flag.StringVar(&options.listen, "listen", "127.0.0.1:0", "address of the plain HTTP listener")
	flag.StringVar(&options.tlsListen, "tls-listen", "127.0.0.1:0", "address of the TLS listener")
	flag.StringVar(&options.folder, "dir", "", "folder for the certificates (default: a new temporary one)")
	flag.StringVar(&options.logLevel, "log-level", "warn", "level of the log on standard error")
	flag.BoolVar(&options.standby, "standby", false, "run a second, unsealed node on the same storage")
	flag.BoolVar(&options.redirectToTLS, "redirect-to-tls", false, "let a standby redirect to the TLS listener of the active node")
	flag.Parse()
	if err := run(options); err != nil {
		fmt.Fprintln(os.Stderr, "vaultserver:", err)
		os.Exit(1)
	}
}

func run(options options) error {
	logger := hclog.New(&hclog.LoggerOptions{Level: hclog.LevelFromString(options.logLevel), Output: os.Stderr})
	certificates, err := makeCertificates(options.folder)
	if err != nil {
		return err
	}
	storage, err := newStorage(logger)
	if err != nil {
		return err
	}

	node, err := newNode(storage, options.listen, options.tlsListen, options.redirectToTLS, logger)
	if err != nil {
		return err
	}
	unsealKey, rootToken, err := initialise(node.core, os.Getenv(rootTokenVariable))
	if err != nil {
		return err
	}
	failed := make(chan error)
	node.serve(certificates, failed)
	mutual, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	serve(node.core, tls.NewListener(mutual, certificates.server(tls.RequireAndVerifyClientCert)), failed)
	state := state{
		Address:        node.address(),
		TLSAddress:     node.tlsAddress(),
		MTLSAddress:    "https://" + mutual.Addr().String(),
		CAFile:         certificates.caFile,
		ClientCertFile: certificates.clientCertFile,
		ClientKeyFile:  certificates.clientKeyFile,
		UnsealKey:      hex.EncodeToString(unsealKey),
		RootToken:      rootToken,
	}

	if options.standby {
		standby, err := newNode(storage, "127.0.0.1:0", "127.0.0.1:0", options.redirectToTLS, logger.Named("standby"))
		if err != nil {
			return err
		}
		// Unseal wipes the key it is given.
		if _, err := standby.core.Unseal(append([]byte(nil), unsealKey...)); err != nil {
			return fmt.Errorf("unseal the standby: %w", err)
		}
		standby.serve(certificates, failed)
		state.StandbyAddress, state.StandbyTLSAddress = standby.address(), standby.tlsAddress()
	}

	if err := json.NewEncoder(os.Stdout).Encode(state); err != nil {
		return err
	}
	return <-failed
}

// storage is shared by the nodes of one cluster: the data, and the lock that decides which of them is active.
type storage struct {
	data physical.Backend
	lock physical.HABackend
}

func newStorage(logger hclog.Logger) (storage, error) {
	data, err := inmem.NewInmem(nil, logger)
	if err != nil {
		return storage{}, err
	}
	lock, err := inmem.NewInmemHA(nil, logger)
	if err != nil {
		return storage{}, err
	}
	return storage{data: data, lock: lock.(physical.HABackend)}, nil
}

// node is one Vault server with its two listeners.
type node struct {
	core       *vault.Core
	plain, tls net.Listener
}

// newNode makes a sealed node. It has no cluster address, so a standby redirects (307) instead of forwarding: this is
// the behaviour that a client has to cope with.
func newNode(storage storage, address, tlsAddress string, redirectToTLS bool, logger hclog.Logger) (*node, error) {
	made := &node{}
	var err error
	if made.plain, err = net.Listen("tcp", address); err != nil {
		return nil, err
	}
	if made.tls, err = net.Listen("tcp", tlsAddress); err != nil {
		return nil, err
	}
	redirect := made.address()
	if redirectToTLS {
		redirect = made.tlsAddress()
	}
	made.core, err = vault.NewCore(&vault.CoreConfig{
		BuiltinRegistry:    registry{},
		CredentialBackends: credentialBackends,
		DisableMlock:       true,
		HAPhysical:         storage.lock,
		LogicalBackends:    logicalBackends,
		Logger:             logger,
		Physical:           storage.data,
		RedirectAddr:       redirect,
		StorageType:        "inmem",
	})
	return made, err
}

func (n *node) address() string { return "http://" + n.plain.Addr().String() }

func (n *node) tlsAddress() string { return "https://" + n.tls.Addr().String() }

func (n *node) serve(certificates *certificates, failed chan<- error) {
	serve(n.core, n.plain, failed)
	serve(n.core, tls.NewListener(n.tls, certificates.server(tls.NoClientCert)), failed)
}

// initialise makes the core usable and returns its one unseal key and a root token of the wanted value.
func initialise(core *vault.Core, wanted string) (unsealKey []byte, rootToken string, err error) {
	ctx := namespace.RootContext(context.Background())
	result, err := core.Initialize(ctx, &vault.InitParams{
		BarrierConfig:  &vault.SealConfig{SecretShares: 1, SecretThreshold: 1},
		RecoveryConfig: nil,
	})
	if err != nil {
		return nil, "", fmt.Errorf("initialise: %w", err)
	}
	unsealKey = result.SecretShares[0]
	if _, err := core.Unseal(append([]byte(nil), unsealKey...)); err != nil {
		return nil, "", fmt.Errorf("unseal: %w", err)
	}
	if err := waitUntilActive(core); err != nil {
		return nil, "", err
	}
	if wanted == "" {
		return unsealKey, result.RootToken, nil
	}

	id, err := uuid.GenerateUUID()
	if err != nil {
		return nil, "", err
	}
	response, err := core.HandleRequest(ctx, &logical.Request{
		ID:          id,
		Operation:   logical.UpdateOperation,
		Path:        "auth/token/create",
		ClientToken: result.RootToken,
		Data: map[string]interface{}{
			"id": wanted, "policies": []string{"root"}, "no_parent": true, "display_name": "root",
		},
	})
	if err == nil && response.IsError() {
		err = response.Error()
	}
	if err != nil {
		return nil, "", fmt.Errorf("create the root token: %w", err)
	}
	return unsealKey, wanted, nil
}

// waitUntilActive waits for the node to win the lock, which happens in the background after unsealing.
func waitUntilActive(core *vault.Core) error {
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if standby, err := core.Standby(); err != nil {
			return err
		} else if !standby {
			return nil
		}
	}
	return errors.New("the node did not become active within 30 s")
}

// serve answers on the listener in the background, with the handler and the limits of a listener of Vault's own.
func serve(core *vault.Core, listener net.Listener, failed chan<- error) {
	server := &http.Server{
		Handler: vaulthttp.Handler.Handler(&vault.HandlerProperties{
			Core: core,
			ListenerConfig: &configutil.Listener{
				MaxRequestDuration: vault.DefaultMaxRequestDuration,
				MaxRequestSize:     vaulthttp.DefaultMaxRequestSize,
			},
		}),
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       5 * time.Minute,
	}
	go func() { failed <- server.Serve(listener) }()
}
