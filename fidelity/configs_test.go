package fidelity_test

import (
	"bytes"
	"text/template"
)

// settings is what a configuration is made from.
type settings struct {
	spec
	Dir   string
	Host  string // of the upstream, with its port
	Port  int    // of the proxy
	Port2 int    // of nginx for h2c, of Lanyard for its API
	Key   string // what apps send
	Token string
}

// shown is the configuration that the document shows.
var shown = settings{
	spec: spec{URL: "http://127.0.0.1:8000"}, Dir: "/run/nginx", Host: "127.0.0.1:8000", Port: 9000, Port2: 9001, Key: "KEY", Token: "TOKEN",
}

// configFor returns the configuration of a proxy.
func configFor(proxy string, s settings) string {
	var b bytes.Buffer
	if err := configs.ExecuteTemplate(&b, proxy, s); err != nil {
		panic(err)
	}
	return b.String()
}

// configs are what a user would write who wants as little changed as possible.
var configs = template.Must(template.New("").Parse(`
{{define "lanyard"}}{
	admin off
	skip_install_trust
	grace_period 1s
	servers {
		protocols h1 h2c
		max_header_size 1MiB
		expected_underscore_headers x_under
		expected_dot_headers x.dot
	}
	lanyard {
		public_url http://localhost:{{.Port2}}
		store badger {{.Dir}}/data
		api_key ` + apiKey + `
		client app {{.Key}}
		redirect_url http://localhost:1/callback
		provider fidelity {
			authorize_url http://127.0.0.1:1/authorize
			token_url {{or .TokenURL "http://127.0.0.1:1/token"}}
			api_url {{.URL}}
			allow_private
		}
		integration fidelity {
			client_id x
			client_secret yyyyyyyy
		}
	}
}
:{{.Port}} {
	bind 127.0.0.1
	lanyard_proxy {
		links off
{{- if or .H2 .CA .HeadTimeout}}
		transport {
			{{- if .HeadTimeout}}
			response_header_timeout {{.HeadTimeout}}
			{{- end}}
			{{- if .H2}}
			versions {{if .CA}}2{{else}}h2c{{end}}
			{{- end}}
			{{- if .CA}}
			tls_trust_pool file {{.CA}}
			{{- end}}
		}
{{- end}}
	}
}
:{{.Port2}} {
	bind 127.0.0.1
	lanyard_api
}
{{end}}

{{- define "caddy"}}{
	admin off
	auto_https off
	grace_period 1s
	servers {
		protocols h1 h2c
		max_header_size 1MiB
		expected_underscore_headers x_under
		expected_dot_headers x.dot
		enable_full_duplex
	}
}
:{{.Port}} {
	bind 127.0.0.1
	header -Via
	reverse_proxy {{.URL}} {
		header_up Authorization "Bearer {{.Token}}"
		header_up Host {upstream_hostport}
		header_up -X-Forwarded-*
		header_up -Via
		flush_interval -1
		transport http {
			compression off
			expect_continue_timeout 1s
			{{- if .HeadTimeout}}
			response_header_timeout {{.HeadTimeout}}
			{{- end}}
			{{- if .H2}}
			versions {{if .CA}}2{{else}}h2c{{end}}
			{{- end}}
			{{- if .CA}}
			tls_trust_pool file {{.CA}}
			{{- end}}
		}
	}
}
{{end}}

{{- define "nginx"}}daemon off;
master_process off;
pid {{.Dir}}/nginx.pid;
events {
	worker_connections 4096;
}
http {
	access_log off;
	client_body_temp_path {{.Dir}}/body;
	proxy_temp_path {{.Dir}}/proxy;
	fastcgi_temp_path {{.Dir}}/fastcgi;
	uwsgi_temp_path {{.Dir}}/uwsgi;
	scgi_temp_path {{.Dir}}/scgi;
	server_tokens off;
	underscores_in_headers on;
	ignore_invalid_headers off;
	merge_slashes off;
	large_client_header_buffers 8 128k;
	client_max_body_size 0;
	map_hash_bucket_size 256;
	map $http_authorization $token {
		default "";
		"Bearer {{.Key}}" "Bearer {{.Token}}";
	}
	map $http_upgrade $connection_upgrade {
		default upgrade;
		"" "";
	}
	upstream api {
		server {{.Host}};
		keepalive 16;
	}
	server {
		listen 127.0.0.1:{{.Port}};
		listen 127.0.0.1:{{.Port2}} http2;
		location / {
{{- if .GRPC}}
			grpc_pass {{if .CA}}grpcs{{else}}grpc{{end}}://api;
			grpc_set_header Authorization $token;
			grpc_set_header Host {{.Host}};
			grpc_buffer_size 128k;
			grpc_read_timeout 1h;
			grpc_send_timeout 1h;
{{- else}}
			proxy_pass {{if .CA}}https{{else}}http{{end}}://api;
			proxy_http_version 1.1;
			proxy_buffering off;
			proxy_request_buffering off;
			proxy_buffer_size 128k;
			proxy_buffers 8 128k;
			proxy_read_timeout {{if .HeadTimeout}}{{.HeadTimeout}}{{else}}1h{{end}};
			proxy_send_timeout 1h;
			proxy_set_header Host {{.Host}};
			proxy_set_header Authorization $token;
			proxy_set_header Upgrade $http_upgrade;
			proxy_set_header Connection $connection_upgrade;
			proxy_redirect off;
			proxy_set_header TE $http_te;
			proxy_pass_header Date;
			proxy_pass_header Server;
			proxy_pass_header X-Pad;
			proxy_pass_header X-Accel-Redirect;
			proxy_pass_header X-Accel-Expires;
			proxy_pass_header X-Accel-Buffering;
			proxy_ignore_headers X-Accel-Redirect X-Accel-Expires X-Accel-Limit-Rate X-Accel-Buffering X-Accel-Charset;
{{- end}}
		}
	}
}
{{end}}`))
