# Both programs come from one build and go into images of their own:
#
#	docker build --target baremetal-speaker -t baremetal-speaker .
#	docker build --target baremetal-cloud-controller-manager -t baremetal-cloud-controller-manager .

FROM --platform=$BUILDPLATFORM golang:1.26 AS build
WORKDIR /src
# Before the sources, so that a change of code does not fetch modules again.
COPY go.mod go.sum ./
RUN go mod download
COPY cmd/ cmd/
COPY pkg/ pkg/
COPY provider/ provider/
ARG TARGETOS TARGETARCH
ARG VERSION=v0.0.0-dev
# Static programs: the images have no C library.
RUN CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH go build -trimpath \
	-ldflags "-s -w -X k8s.io/component-base/version.gitVersion=$VERSION" \
	-o /out/ ./cmd/baremetal-cloud-controller-manager ./cmd/baremetal-speaker

# From scratch: they talk to the API server, whose CA comes with the service
# account, and to routers. No shell, no CA certificates, no time zones.
FROM scratch AS baremetal-cloud-controller-manager
COPY --from=build /out/baremetal-cloud-controller-manager /
USER 65532:65532
ENTRYPOINT ["/baremetal-cloud-controller-manager"]

# User 0 on purpose: manifests/base/speaker.yaml says why, and takes all but two
# capabilities away.
FROM scratch AS baremetal-speaker
COPY --from=build /out/baremetal-speaker /
USER 0:0
ENTRYPOINT ["/baremetal-speaker"]
